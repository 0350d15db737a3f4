# Runs Puppet, as once says, until a run changes nothing.
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
	once "$left" >"$one" 2>&1 </dev/null
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
		# What a failed command printed stands before its error, as notices.
		grep '^Notice: /.*/returns: ' "$one.said" | grep -v '/returns: executed successfully' | tail -n 12 || true
		if grep -q '^Error:' "$one.said"; then grep -A3 '^Error:' "$one.said" | grep -v '^--$' | tail -n 24; else tail -n 24 "$one.said"; fi
		exit 1
		;;
	esac
done
