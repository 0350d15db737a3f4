#!/bin/sh
. "$(dirname "$0")/junit.sh"
post() { curl -sS --max-time 5 -o /dev/null -w '%{http_code}' -d "$1" -H 'Content-Type: application/json' "$DAYFLY_ADDRESS/orders"; }
check "an order is taken" equal "$(post '{"item":"lamp","count":2}')" 201
check "an order without an item is refused" equal "$(post '{"count":2}')" 422
check "an order that is not JSON is refused" equal "$(post 'lamp')" 400
check "a total of two lamps" equal "$(curl -fsS --max-time 5 -d '{"item":"lamp","count":2}' "$DAYFLY_ADDRESS/orders" | jq .total)" 5800
finish
