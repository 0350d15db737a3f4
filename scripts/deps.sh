#!/bin/sh
# Installs the Debian packages that the local region and the tests need, and
# says so. Safe to repeat: what is there is left alone.
set -eu
missing=
need() { # need PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
PATH=$PATH:/usr/sbin:/sbin
need runc runc
need haproxy haproxy
need mmdebstrap mmdebstrap
need nft nftables
need ip iproute2
need curl curl
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="$missing debian-archive-keyring"
if [ "${1:-}" = test ]; then
    # Independent AWS clients, from Debian's packages.
    [ -e /usr/bin/aws ] || missing="$missing awscli"
    # The tests start a server of their own; Debian's need not run.
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
fi
if [ "${1:-}" = test ] || [ "${1:-}" = browser ]; then
    # Browsers for the console's tests, and what drives them.
    need chromium chromium
    need firefox-esr firefox-esr
    need node nodejs
    need npm npm
    ls /usr/share/fonts/truetype/*/* >/dev/null 2>&1 || missing="$missing fonts-liberation"
fi
if [ "${1:-}" = puppetdb ]; then
    [ -e /usr/share/puppetdb/puppetdb.jar ] || missing="$missing dbconfig-no-thanks puppetdb"
fi
if [ "${1:-}" = systemd ]; then
    need systemd-nspawn systemd-container
fi
if [ "${1:-}" = bench ]; then
    # The benchmark's peers. Another docker may be in PATH: Debian's is meant.
    [ -e /usr/sbin/dockerd ] && [ -e /usr/bin/docker ] || missing="$missing docker.io"
    [ -e /usr/bin/packer ] || missing="$missing packer"
fi
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "these packages are missing and only root can install them:$missing" >&2
    echo "  sudo apt-get install$missing" >&2
    exit 1
fi
echo "installing Debian packages:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# RUNLEVEL=1: no package starts its daemon where there is no systemd.
# shellcheck disable=SC2086
RUNLEVEL=1 apt-get -qq -y install --no-install-recommends $missing >/dev/null
# With systemd, Debian starts these with their own configuration; the region, the
# tests and the benchmark run theirs.
if [ -d /run/systemd/system ]; then
    case "$missing" in *haproxy*) systemctl disable --now haproxy >/dev/null 2>&1 || true ;; esac
    case "$missing" in *puppetdb*) systemctl disable --now puppetdb >/dev/null 2>&1 || true ;; esac
    case "$missing" in *docker.io*) systemctl disable --now docker.service docker.socket containerd.service >/dev/null 2>&1 || true ;; esac
fi
