#!/bin/sh
# Format, vet, rules of the architecture, short tests: for every commit. With
# the word static, no tests.
set -eu
cd "$(dirname "$0")/.."
bad=$(gofmt -l $(git ls-files '*.go' | grep -v _gen.go))
if [ -n "$bad" ]; then
    echo "not formatted (gofmt -w):" >&2
    echo "$bad" >&2
    exit 1
fi
go vet ./...
# Unused code and mistakes that vet leaves; staticcheck.conf says what is off and
# why. Its version is pinned in go.mod as a tool.
go tool staticcheck ./...
for f in $(git ls-files '*.sh'); do sh -n "$f"; done
[ "${1:-}" = static ] || go test -short ./...
