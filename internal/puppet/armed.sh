if ! cmp -s "$SETTINGS" "$ARMED"; then
	echo "puppet: the runs ended well, but Stage['handoff'] did not arm the hand-off: $ARMED is not there or not the same as $SETTINGS"
	exit 1
fi
report=$DIR/puppet/var/state/last_run_report.yaml
if [ -n "$REPORT" ] && [ -s "$report" ]; then "$AGENT" put "$report" "$REPORT" || echo "puppet: the report could not be stored"; fi
echo "puppet: run $run changed nothing; the hand-off is armed"
