rm -f "$conf/csr_attributes.yaml"
# What the server made the catalog from, where it says so: without a
# config_version of the environment's it is the time of the catalog.
catalog=$(sed -n '/^version:/,/^[a-z]/s/^  config: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$DIR/puppet/var/state/last_run_summary.yaml" 2>/dev/null | head -n 1)
echo "catalog-version $catalog"
case $catalog in
*[!0-9]*)
	if [ -n "$VERSION" ] && [ "$catalog" != "$VERSION" ]; then
		echo "puppet: the server's environment $ENVIRONMENT has version $catalog, and this image is to be made from $VERSION: deploy that to the server, or change image.puppet.version"
		exit 1
	fi
	;;
*) if [ -n "$VERSION" ]; then echo "the server's environment $ENVIRONMENT tells no version of its own (config_version in environment.conf): that it has $VERSION is not checked"; fi ;;
esac
# The company's code need not know Dayfly: where its catalog does not arm the
# hand-off, the built-in module does, after a run that changed nothing.
if ! cmp -s "$SETTINGS" "$ARMED"; then
	puppet apply --color false --log_level notice --confdir "$DIR/puppet/arm" --vardir "$DIR/puppet/armvar" --rundir "$DIR/puppet/run" --logdir "$DIR/puppet/log" \
		--modulepath "$DIR/modules" -e 'include dayfly::handoff' >>"$log" 2>&1 </dev/null || { echo "puppet: the hand-off could not be armed:"; tail -n 12 "$log"; exit 1; }
fi
