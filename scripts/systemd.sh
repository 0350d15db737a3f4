#!/bin/sh
# The unit of `dayfly server unit` under a real systemd: a Debian 12 of its own
# boots in a container, the server bakes and deploys on a simulated region, is
# killed and comes back, and stops in order. For root; make test-systemd.
set -eu
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "a system that boots in a container needs root" >&2; exit 1; }
scripts/deps.sh systemd
dir=$(mktemp -d /var/tmp/dayfly-systemd-XXXXXX)
root=$dir/root
nspawn=
region="bin/dayfly --region-dir $dir/region region"
clean() {
    code=$?
    trap - EXIT INT TERM
    if [ -n "$nspawn" ]; then
        kill "$nspawn" 2>/dev/null || true
        wait "$nspawn" 2>/dev/null || true
    fi
    $region stop --force >/dev/null 2>&1 || true
    if [ $code != 0 ]; then tail -n 20 "$dir/boot.log" 2>/dev/null || true; fi
    rm -rf "$dir"
    exit $code
}
trap clean EXIT INT TERM

echo "== a Debian 12 with systemd"
mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus bookworm "$root"
cp bin/dayfly bin/dayfly-agent bin/dayfly-probe "$root/usr/local/bin/"
chroot "$root" useradd --system --home-dir /var/lib/dayfly --shell /usr/sbin/nologin dayfly
cp -r examples/shop "$root/srv/shop"
rm -r "$root/srv/shop/app"
examples/shop/app/release.sh 1.0.0 "$root/srv/box" >/dev/null
chmod 755 "$root/srv/box"
sed -i 's#http://100.64.0.9/shop#file:///srv/box#' "$root/srv/shop/dayfly.yaml"

echo "== a region, on this host's loopback, which the container shares"
$region start --simulate --listen "127.0.0.1:$((20000 + $$ % 20000))" --base debian-12-slim >/dev/null
mkdir -p "$root/etc/dayfly"
(umask 077 && $region env | sed 's/^export //' >"$root/etc/dayfly/server.env")

echo "== boot"
inside() { nsenter -t "$leader" -m -p -u -i -r -w "$@"; }
systemd-nspawn --register=no --keep-unit --quiet -D "$root" --boot </dev/null >"$dir/boot.log" 2>&1 &
nspawn=$!
n=0
until leader=$(pgrep -P "$nspawn" -x systemd) && inside systemctl is-system-running --wait >/dev/null 2>&1; do
    n=$((n + 1))
    [ $n -lt 60 ] || { echo "systemd does not come up" >&2; exit 1; }
    sleep 1
done

d() { inside /usr/local/bin/dayfly --state /var/lib/dayfly "$@"; }
show() { inside systemctl show -p "$1" --value dayfly; }
# serves waits until the server answers and still has what it deployed.
serves() {
    n=0
    until d env list 2>/dev/null | grep -q "$1"; do
        n=$((n + 1))
        [ $n -lt 150 ] || { echo "the server does not answer with $1" >&2; inside journalctl -u dayfly --no-pager | tail -n 20 >&2; exit 1; }
        sleep 0.1
    done
}

echo "== the unit"
inside sh -c '/usr/local/bin/dayfly server unit >/etc/systemd/system/dayfly.service'
inside systemd-analyze verify /etc/systemd/system/dayfly.service
inside systemctl enable --now --quiet dayfly
# It says itself when it works: whoever waited for systemd need not wait again.
d server status >/dev/null
serves NAME
[ "$(show User)" = dayfly ]

echo "== a bake and a deploy within its limits"
d deploy /srv/shop small >/dev/null 2>&1 || { inside journalctl -u dayfly --no-pager | tail -n 20 >&2; exit 1; }
serves 'shop-small  serving'

echo "== killed"
before=$(show MainPID)
inside sh -c "kill -9 $before"
n=0
until [ "$(show NRestarts)" = 1 ] && [ "$(show ActiveState)" = active ]; do
    n=$((n + 1))
    [ $n -lt 100 ] || { echo "systemd does not start it again" >&2; exit 1; }
    sleep 0.1
done
serves 'shop-small  serving'
[ "$(show MainPID)" != "$before" ]

echo "== stopped in order, and started again"
inside systemctl stop dayfly
[ "$(show Result)" = success ] && [ "$(show ExecMainStatus)" = 0 ]
inside systemctl start dayfly
serves 'shop-small  serving'
if inside journalctl -u dayfly --no-pager | grep -q 'level=ERROR'; then
    inside journalctl -u dayfly --no-pager | grep 'level=ERROR' >&2
    exit 1
fi
echo "every step held"
