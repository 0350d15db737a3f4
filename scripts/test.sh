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
# What -short leaves out is known by the word in the test; in a helper it would
# not be seen below, and its test would not run at all.
if git grep -l --untracked 'testing\.Short()' -- '*.go' ':!*_test.go' >&2; then
    echo "testing.Short() belongs into the test file itself: scripts/test.sh looks for it there" >&2
    exit 1
fi
echo "== race detector: all packages, as root where this is root"
# internal/control dies at every one of some hundred writes, in virtual time; it
# runs below without the detector, under which it would take many minutes.
go test -race -short -count=1 -timeout 40m $(go list ./... | grep -v /internal/control$)
if [ "$(id -u)" != 0 ]; then
    echo "not root: the tests on real namespaces, instances and balancers were NOT run" >&2
    exit 1
fi
echo "== the console's pages are what their sources give"
scripts/console.sh check
echo "== what -short left out, on real instances"
# By itself internal/control needs no root, but a processor and no real time: it
# takes the time in which the others wait.
control=$(mktemp)
nice -n 10 go test -count=1 -timeout 40m ./internal/control >"$control" 2>&1 &
pid=$!
trap 'kill $pid 2>/dev/null || true; rm -f "$control"' EXIT
# All other tests were whole in the race detector's run.
go test -count=1 -timeout 40m -p 1 $(git grep -l --untracked 'testing\.Short()' -- '*_test.go' |
    xargs -n1 dirname | sort -u | grep -v '^internal/control$' | sed 's|^|./|')
wait $pid || { cat "$control"; exit 1; }
trap 'rm -f "$control"' EXIT
cat "$control"
echo "== the demo, small, on the real binaries"
# Without the Puppet server, which e2e/puppetserver is for (make test-puppetserver).
DEMO_PUPPET=code DEMO_INSTANCES=9 DEMO_SUITES=3 go run -buildvcs=false ./demo
