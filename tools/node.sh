#!/bin/sh
# Install what the tests need of npm, at the locked versions: compiler, bundlers, axe, `ws`.
set -eu
cd "$(dirname "$0")/.."

if cmp -s package-lock.json node_modules/.done; then
    exit 0
fi
if ! command -v npm >/dev/null 2>&1; then
    echo "npm is missing: the tests of types and bundles skip, unless CI is true" >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
fi
echo "==> Installing TypeScript, bundlers, axe and ws for the tests (once)"
npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error
cp package-lock.json node_modules/.done
