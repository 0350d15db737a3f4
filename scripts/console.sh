#!/bin/sh
# Builds the console out of web/ into internal/web/dist. With the word check it
# builds elsewhere and compares: what is committed must be what the sources give.
set -eu
cd "$(dirname "$0")/.."
scripts/deps.sh browser
cd web
# Debian's node starts npm; the tools need a newer one, which npm ci brings
# (node_modules/.bin comes first where npx runs them).
# The API's types, from the document of the code that is here.
CGO_ENABLED=0 ${GO:-go} run -buildvcs=false ../cmd/dayfly server openapi > openapi.json.new
if [ ! -d node_modules ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    echo "installing the console's build tools (npm ci)"
    if ! npm ci --no-audit --no-fund --loglevel=error; then
        rm -f openapi.json.new
        echo "npm cannot install the console's build tools: internal/web/dist was NOT compared with web/" >&2
        [ "${1:-}" = check ] || exit 1
        exit 0 # a registry that cannot be reached says nothing about the pages
    fi
fi
if [ "${1:-}" = check ]; then
    rm -f openapi.json.new
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
    npx --no-install tsc --noEmit
    npx --no-install vite build --logLevel error --outDir "$out" --emptyOutDir
    if ! diff -rq "$out" ../internal/web/dist; then
        echo "internal/web/dist is not what web/ gives: make console, and commit it" >&2
        exit 1
    fi
    exit 0
fi
mv openapi.json.new openapi.json
npx --no-install openapi-typescript openapi.json -o src/openapi.ts
npx --no-install tsc --noEmit
npx --no-install vite build --logLevel warn
