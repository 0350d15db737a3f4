#!/bin/sh
. "$(dirname "$0")/junit.sh"
total=$(curl -fsS --max-time 5 -d '{"item":"lamp","count":10}' "$DAYFLY_ADDRESS/orders" | jq .total)
check "ten lamps cost a tenth less" equal "$total" 26100
finish
