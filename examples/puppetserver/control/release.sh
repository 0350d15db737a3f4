#!/bin/sh
# release.sh VERSION OUTDIR: packs the control repo as control-VERSION.tar.gz into
# the box OUTDIR, the same bytes each time, and names it in SHA256SUMS, LATEST and
# VERSION. The shop's module is the one that its own blueprint has.
set -eu
[ $# = 2 ] || { echo "usage: release.sh VERSION OUTDIR" >&2; exit 2; }
version=$1
mkdir -p "$2"
out=$(cd "$2" && pwd)
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cp -R . "$tmp/tree"
rm "$tmp/tree/release.sh"
cp -R ../../shop/puppet/modules/shop "$tmp/tree/modules/shop"
echo "$version" >"$tmp/tree/VERSION"
name=control-$version.tar.gz
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --mode=u=rwX,go=rX -C "$tmp/tree" -cf - . | gzip -n1 >"$out/.$name"
mv "$out/.$name" "$out/$name"
(cd "$out" && sha256sum -- *.tar.gz >.SHA256SUMS && mv .SHA256SUMS SHA256SUMS && echo "$name" >.LATEST && mv .LATEST LATEST && echo "$version" >.VERSION && mv .VERSION VERSION)
