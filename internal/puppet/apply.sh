# Applies the blueprint's own Puppet code until a run changes nothing.
code=$DIR/inputs/puppet
envs=$DIR/environments
log=$DIR/puppet.log
rm -rf "$envs"
mkdir -p "$envs" "$DIR/modules"
cp -R "$code" "$envs/$ENVIRONMENT"
cp -R "$DIR/inputs/modules/." "$DIR/modules/"
mkdir -p "$envs/$ENVIRONMENT/manifests"
# The last thing in every catalog, after all that the blueprint says.
cat >"$envs/$ENVIRONMENT/manifests/zz_dayfly_handoff.pp" <<'PP'
unless defined(Stage['handoff']) {
  stage { 'handoff': require => Stage['main'] }
}
unless defined(Class['dayfly::handoff']) {
  class { 'dayfly::handoff': stage => 'handoff' }
}
PP
conf=$envs/$ENVIRONMENT/environment.conf
if [ -e "$conf" ] && grep -q '^[[:space:]]*modulepath' "$conf" && ! grep -q '^[[:space:]]*modulepath.*basemodulepath' "$conf"; then
	sed -i 's/^\([[:space:]]*modulepath[[:space:]]*=.*\)$/\1:$basemodulepath/' "$conf"
fi
FACTER_dayfly_role=$ROLE FACTER_dayfly_blueprint=$BLUEPRINT
export FACTER_dayfly_role FACTER_dayfly_blueprint
# once SECONDS is one run.
once() {
	timeout "$1" puppet apply --detailed-exitcodes --color false --log_level notice \
		--confdir "$DIR/puppet/conf" --vardir "$DIR/puppet/var" --rundir "$DIR/puppet/run" --logdir "$DIR/puppet/log" \
		--environmentpath "$envs" --environment "$ENVIRONMENT" --basemodulepath "$DIR/modules:/etc/puppet/code/modules:/etc/puppetlabs/code/modules:/usr/share/puppet/modules:/opt/puppetlabs/puppet/modules" \
		"$envs/$ENVIRONMENT/manifests"
}
