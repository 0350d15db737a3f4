#!/bin/sh
# box/release.sh VERSION: makes a release out of the folder site and names it as
# the most recent one.
set -eu
[ $# = 1 ] || { echo "usage: release.sh VERSION" >&2; exit 2; }
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cp -R site "$tmp/www"
echo ok >"$tmp/www/healthz"
echo "$1" >"$tmp/www/version"
tar --owner=0 --group=0 --numeric-owner -C "$tmp" -czf "NAME-$1.tar.gz" www
sha256sum -- *.tar.gz >SHA256SUMS
echo "NAME-$1.tar.gz" >LATEST
