# Runs the checks of an image on a fresh instance. Each prints a line of its
# own with its exit code, then the end of what it said.
# Not in /tmp: systemd empties that while it boots.
work=$(mktemp -d /var/tmp/dayfly-verify.XXXXXX)
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
	set --
	printf '%s\n' "$ALLOW" >"$work/allow"
	while IFS= read -r a <&4; do
		if [ -n "$a" ]; then set -- "$@" --allow "$a"; fi
	done 4<"$work/allow"
	timeout "$EACH" "$work/probe" secrets --allow "$work/" "$@"
}
inventory() {
	timeout "$EACH" "$work/probe" inventory >"$work/$INVENTORY" || return 1
	"$work/probe" sbom "$work/$INVENTORY" "$NAME" >"$work/$SBOM" || return 1
	if [ -z "$STORE" ]; then return 0; fi
	for f in "$INVENTORY" "$SBOM"; do "$AGENT" put "$work/$f" "$STORE$f" || return 1; done
}
goss() { (cd "$work/inputs/verify" && exec timeout "$EACH" "$work/probe" goss "$1"); }
script() {
	# In a shell of its own: the function must come back to print the result.
	(cd "$work/inputs/verify" && exec timeout "$EACH" "./$1")
}
mkdir "$work/inputs"
"$AGENT" fetch "$INPUTS" "$work/inputs.tar"
tar -C "$work/inputs" -xf "$work/inputs.tar"
"$AGENT" fetch "$PROBE" "$work/probe"
chmod 700 "$work/probe"
check agent running
check hand-off armed
check secrets secrets
check inventory inventory
printf '%s\n' "$CHECKS" >"$work/checks"
while IFS= read -r c <&3; do
	case "$c" in
	'') ;;
	*.yaml | *.yml) check "$c" goss "$c" ;;
	*) check "$c" script "$c" ;;
	esac
done 3<"$work/checks"
echo "@@$NONCE facts"
facts
echo "@@$NONCE end"
