#!/bin/sh
# All tests: units and properties with the race detector, then, as root, those
# that make real namespaces, instances and balancers, then the demo at a small
# size as the end-to-end run of the real binaries.
set -eu
cd "$(dirname "$0")/.."
scripts/deps.sh test
scripts/check.sh
echo "== race detector, what needs no root"
go test -race -short ./...
if [ "$(id -u)" != 0 ]; then
    echo "not root: the tests on real namespaces, instances and balancers were NOT run" >&2
    exit 1
fi
echo "== real namespaces, instances, balancers"
go test -count=1 -timeout 20m -p 1 ./...
echo "== the demo, small, on the real binaries"
DEMO_INSTANCES=9 DEMO_SUITES=3 go run -buildvcs=false ./demo
