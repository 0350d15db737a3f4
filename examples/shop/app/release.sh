#!/bin/sh
# release.sh VERSION OUTDIR: builds shop-VERSION.tar.gz into the box OUTDIR, the
# same bytes each time, and names it in SHA256SUMS and LATEST.
set -eu
[ $# = 2 ] || { echo "usage: release.sh VERSION OUTDIR" >&2; exit 2; }
version=$1
mkdir -p "$2"
out=$(cd "$2" && pwd)
cd "$(dirname "$0")"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/bin"
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$tmp/bin/shop" .
echo "$version" >"$tmp/VERSION"
name=shop-$version.tar.gz
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 --mode=u=rwX,go=rX -C "$tmp" -cf - VERSION bin | gzip -n1 >"$out/.$name"
mv "$out/.$name" "$out/$name"
(cd "$out" && sha256sum -- *.tar.gz >.SHA256SUMS && mv .SHA256SUMS SHA256SUMS && echo "$name" >.LATEST && mv .LATEST LATEST)
