#!/bin/sh
# The shop's own: folders with the right owners, and nothing deployed yet.
set -eu
[ "$(stat -c %U:%a /srv/shop/data)" = shop:750 ] || { echo "/srv/shop/data has the wrong owner or mode"; exit 1; }
[ -z "$(ls -A /srv/shop/releases)" ] || { echo "a release is in the image"; exit 1; }
[ ! -e /srv/shop/current ] || { echo "a release is in the image"; exit 1; }
