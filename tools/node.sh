#!/bin/sh
# Install what the tests of types and documents need of npm, at the locked versions.
set -eu
cd "$(dirname "$0")/../tests/types"

if [ node_modules/.done -nt package-lock.json ]; then
    exit 0
fi
if ! command -v npm >/dev/null 2>&1; then
    echo "npm is missing: the tests of types skip, unless CI is true" >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
fi
echo "==> Installing TypeScript for the tests (once)"
npm ci --no-audit --no-fund --no-update-notifier --loglevel=error
touch node_modules/.done
