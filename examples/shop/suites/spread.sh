#!/bin/sh
. "$(dirname "$0")/junit.sh"
seen=$(for i in $(seq 40); do get /version | jq -r .instance; done | sort -u | wc -l)
check "all $DAYFLY_SIZE instances answer" equal "$seen" "$DAYFLY_SIZE"
finish
