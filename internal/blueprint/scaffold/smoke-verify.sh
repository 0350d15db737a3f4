#!/bin/sh
# What every image must hold.
set -eu
command -v busybox >/dev/null || { echo "busybox is missing"; exit 1; }
id NAME >/dev/null || { echo "the user NAME is missing"; exit 1; }
[ -z "$(ls -A /srv/NAME/releases)" ] || { echo "a release is in the image"; exit 1; }
