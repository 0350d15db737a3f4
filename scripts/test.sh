#!/bin/sh
# All tests: units and properties with the race detector, then, as root, those
# that make real namespaces, instances and balancers, then the demo at a small
# size as the end-to-end run of the real binaries.
set -eu
cd "$(dirname "$0")/.."
scripts/deps.sh test
# Public templates as test data, where they lie beside the checkout.
if [ -z "${DAYFLY_TEMPLATES:-}" ] && [ -d ../shared/templates ]; then
    DAYFLY_TEMPLATES=$(cd ../shared/templates && pwd)
    export DAYFLY_TEMPLATES
fi
# Base images are made once and kept for the next run.
export DAYFLY_TEST_BASEIMAGES="${DAYFLY_TEST_BASEIMAGES:-/var/cache/dayfly}"
scripts/check.sh static
echo "== race detector, what needs no root"
# internal/control dies at every one of some hundred writes, in virtual time; it
# runs below without the detector, under which it would take many minutes.
go test -race -short $(go list ./... | grep -v /internal/control$)
if [ "$(id -u)" != 0 ]; then
    echo "not root: the tests on real namespaces, instances and balancers were NOT run" >&2
    exit 1
fi
echo "== the console's pages are what their sources give"
scripts/console.sh check
echo "== real namespaces, instances, balancers"
go test -count=1 -timeout 20m -p 1 ./...
echo "== the demo, small, on the real binaries"
# Without the Puppet server, which e2e/puppetserver is for (make test-puppetserver).
DEMO_PUPPET=code DEMO_INSTANCES=9 DEMO_SUITES=3 go run -buildvcs=false ./demo
