#!/bin/sh
. "$(dirname "$0")/junit.sh"
want=$(cat /srv/shop/current/VERSION)
for i in 1 2 3 4 5 6; do
    check "answer $i comes from the release of this environment" equal "$(get /version | jq -r .version)" "$want"
done
finish
