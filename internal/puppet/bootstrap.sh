# Installs Puppet's agent without letting its service run.
export DEBIAN_FRONTEND=noninteractive
mkdir -p "$DIR"
chmod 0700 "$DIR"
log=$DIR/bootstrap.log
finish() {
	code=$?
	rm -f /usr/sbin/policy-rc.d.dayfly
	if [ -e "$DIR/policy" ]; then rm -f /usr/sbin/policy-rc.d "$DIR/policy"; fi
	if [ $code -ne 0 ]; then
		echo "the bootstrap ended with exit code $code; the end of its log:"
		tail -n 40 "$log"
	fi
}
trap finish EXIT
say() { echo "$*"; echo "## $*" >>"$log"; }
apt() { apt-get -q -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 -o APT::Sandbox::User=root -o Dpkg::Options::=--force-unsafe-io -o Dpkg::Options::=--force-confold "$@" >>"$log" 2>&1 </dev/null; }
again() {
	n=1
	until "$@"; do
		if [ $n -ge 4 ]; then return 1; fi
		say "try $n of: $* failed; once more in $((n * 3)) s"
		sleep $((n * 3))
		n=$((n + 1))
	done
}
install_agent() { apt update && apt install -y --no-install-recommends "$PACKAGE"; }

# The service stays off: one run too many would change what serves.
if [ -d /usr/lib/systemd/system ] || [ -d /lib/systemd/system ]; then
	mkdir -p /etc/systemd/system
	for unit in puppet.service puppet-agent.service; do ln -sf /dev/null "/etc/systemd/system/$unit"; done
fi
if command -v puppet >/dev/null 2>&1; then
	say "puppet is there already"
else
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		: >"$DIR/policy"
		printf '#!/bin/sh\ncase $1 in puppet*) exit 101 ;; esac\nexit 0\n' >/usr/sbin/policy-rc.d
		chmod 0755 /usr/sbin/policy-rc.d
	fi
	again install_agent
	say "installed $PACKAGE"
fi
if [ -x /etc/init.d/puppet ] && command -v update-rc.d >/dev/null 2>&1; then update-rc.d puppet disable >>"$log" 2>&1 || true; fi
version=$(puppet --version)
echo "puppet $version"
case $version in
[0-6].*)
	echo "this needs Puppet 7 or later"
	exit 1
	;;
esac
