#!/bin/sh
. "$(dirname "$0")/junit.sh"
for i in 1 2 3 4 5; do
    check "healthz answers $i" get /healthz
done
check "the page is there" sh -c "curl -fsS --max-time 5 $DAYFLY_ADDRESS/ | grep -q '<title>Shop</title>'"
finish
