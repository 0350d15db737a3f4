#!/bin/sh
# Runs on an instance of an environment that was made for it; $DAYFLY_ADDRESS is
# the load balancer.
. "$(dirname "$0")/junit.sh"
check "healthz answers" get /healthz
check "the page is there" sh -c "curl -fsS --max-time 5 $DAYFLY_ADDRESS/ | grep -q '<h1>NAME</h1>'"
finish
