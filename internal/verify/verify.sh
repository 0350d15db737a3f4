# Runs the checks of an image on a fresh instance. Each prints a line of its
# own with its exit code, then the end of what it said.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
check() {
	name=$1
	shift
	set +e
	"$@" >"$work/out" 2>&1 </dev/null
	code=$?
	set -e
	echo "@@$NONCE $code $name"
	tail -c "$KEEP" "$work/out"
	echo
}
armed() {
	if [ ! -s "$ARMED" ]; then echo "$ARMED is missing: the hand-off is not armed"; return 1; fi
	if [ -e "$STATE/fired" ]; then echo "the hand-off was fired, on an instance without a release"; return 1; fi
}
running() {
	n=0
	while [ $n -lt 150 ]; do
		if [ -s "$RUN/agent.pid" ] && kill -0 "$(cat "$RUN/agent.pid")" 2>/dev/null && grep -qs '"phase":"armed"' "$RUN/boot.json"; then return 0; fi
		n=$((n + 1))
		sleep 0.1
	done
	echo "dayfly-agent does not run, or has not come as far as the armed hand-off: $(cat "$RUN/boot.json" 2>&1 | head -c 300)"
	return 1
}
secrets() {
	bad=0
	for f in /etc/puppet/ssl/private_keys/* /etc/puppetlabs/puppet/ssl/private_keys/* /var/lib/puppet/ssl/private_keys/* /etc/puppet/csr_attributes.yaml /etc/puppetlabs/puppet/csr_attributes.yaml \
		/etc/ssl/private/* /root/.ssh/* /home/*/.ssh/* /root/.aws/* /home/*/.aws/* /root/.netrc /home/*/.netrc /root/.docker/config.json; do
		if [ -f "$f" ]; then echo "$f"; bad=1; fi
	done
	found=$(grep -rlsI -e 'PRIVATE KEY----[-]' /etc /root /home /srv 2>/dev/null | grep -v '^/etc/ssh/ssh_host_' | head -n 10)
	if [ -n "$found" ]; then echo "private keys: $found"; bad=1; fi
	if [ $bad = 1 ]; then echo "a key, certificate, token or login is in the image"; fi
	return $bad
}
script() {
	# In a shell of its own: the function must come back to print the result.
	(cd "$work/inputs/verify" && exec timeout "$EACH" "./$1")
}
mkdir "$work/inputs"
"$AGENT" fetch "$INPUTS" "$work/inputs.tar"
tar -C "$work/inputs" -xf "$work/inputs.tar"
check agent running
check hand-off armed
check secrets secrets
printf '%s\n' "$CHECKS" >"$work/checks"
while IFS= read -r c <&3; do
	if [ -n "$c" ]; then check "$c" script "$c"; fi
done 3<"$work/checks"
echo "@@$NONCE facts"
facts
echo "@@$NONCE end"
