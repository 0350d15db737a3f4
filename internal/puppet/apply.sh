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
: >"$log"
deadline=$(($(date +%s) + SECONDS_MAX))
run=0
while :; do
	run=$((run + 1))
	one=$DIR/puppet-$run.log
	left=$((deadline - $(date +%s)))
	if [ $left -le 0 ]; then
		echo "puppet: the runs took longer than $SECONDS_MAX s"
		exit 1
	fi
	began=$(date +%s)
	set +e
	timeout "$left" puppet apply --detailed-exitcodes --color false --log_level notice \
		--confdir "$DIR/puppet/conf" --vardir "$DIR/puppet/var" --rundir "$DIR/puppet/run" --logdir "$DIR/puppet/log" \
		--environmentpath "$envs" --environment "$ENVIRONMENT" --basemodulepath "$DIR/modules:/etc/puppet/code/modules:/etc/puppetlabs/code/modules:/usr/share/puppet/modules:/opt/puppetlabs/puppet/modules" \
		"$envs/$ENVIRONMENT/manifests" >"$one" 2>&1 </dev/null
	code=$?
	set -e
	cat "$one" >>"$log"
	echo "puppet run $run: exit code $code after $(($(date +%s) - began)) s"
	case $code in
	0) break ;;
	2)
		if [ $run -ge "$MAX_RUNS" ]; then
			echo "puppet: run $run still changed something, and $MAX_RUNS is the most; what it changed:"
			grep '^Notice: /' "$one" | tail -n 15 || true
			exit 1
		fi
		;;
	124)
		echo "puppet: the runs took longer than $SECONDS_MAX s; the last lines:"
		tail -n 15 "$one"
		exit 1
		;;
	*)
		case $code in
		1) echo "puppet: the catalog could not be made or applied:" ;;
		4) echo "puppet: resources failed:" ;;
		6) echo "puppet: resources failed, others were changed:" ;;
		*) echo "puppet: exit code $code:" ;;
		esac
		# Facts that a container lacks are not why a run failed.
		grep -v '^Error: Facter:' "$one" >"$one.said" || true
		if grep -q '^Error:' "$one.said"; then grep -A3 '^Error:' "$one.said" | grep -v '^--$' | tail -n 24; else tail -n 24 "$one.said"; fi
		exit 1
		;;
	esac
done
if ! cmp -s "$SETTINGS" "$ARMED"; then
	echo "puppet: the runs ended well, but Stage['handoff'] did not arm the hand-off: $ARMED is not there or not the same as $SETTINGS"
	exit 1
fi
report=$DIR/puppet/var/state/last_run_report.yaml
if [ -n "$REPORT" ] && [ -s "$report" ]; then "$AGENT" put "$report" "$REPORT" || echo "puppet: the report could not be stored"; fi
echo "puppet: run $run changed nothing; the hand-off is armed"
