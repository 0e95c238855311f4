#!/bin/sh
# Look for the programs that tests need beside Python; install or name what is missing.
#
# With CI=true a missing program is an error. Otherwise its tests skip and say so.
set -eu

. "$(dirname "$0")/apt.sh"

# nginx is in /usr/sbin on Debian, which an ordinary user's PATH lacks.
PATH=$PATH:/usr/sbin:/sbin

found() {
    for name in $(echo "$1" | tr '|' ' '); do
        command -v "$name" >/dev/null 2>&1 && return
    done
    return 1
}

# Chromium without its windows: the browser tests take half the processor's time.
shell=chromium-headless-shell
chromium="chromium|chromium-browser|google-chrome"

# Lines of: the command (or one of several), then Debian's package.
wanted() {
    echo "$shell|$chromium chromium"
    echo "redis-server|valkey-server redis-server"
    echo "nginx nginx"
    echo "haproxy haproxy"
    echo "strace strace"
    [ ! -d tests/js ] || echo "node nodejs"
    [ ! -d tests/package ] || echo "npm npm"
    [ ! -d tests/package ] || echo "firefox-esr|firefox firefox-esr"
}

python=.venv/bin/python
[ -x $python ] || python=python3

# The C twins, which an installation without a compiler has left out.
built() {
    ls flask_wschat/codec/_speedups*.so flask_wschat/transports/_speedups*.so >/dev/null 2>&1
}

has_headers() {
    $python -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' \
        2>/dev/null
}

missing() {
    wanted | while read -r commands package; do
        found "$commands" || echo "$package"
    done
    if ! built; then
        found "cc|gcc|clang" || echo gcc
        has_headers || echo python3-dev
    fi
}

if ! found $shell; then
    if ! found "$chromium" || apt-cache show $shell >/dev/null 2>&1; then
        apt_install $shell || true
    fi
fi
packages=$(missing)
# One at a time: a package that a distribution lacks must not keep the others away.
for package in $packages; do
    apt_install "$package" || true
done

if ! built && found "cc|gcc|clang" && has_headers; then
    sh "$(dirname "$0")/venv.sh" install python3 .venv .
fi

packages=$(missing | tr '\n' ' ')
if [ -n "$packages" ]; then
    echo "Missing for some of the tests. On Debian and Ubuntu: apt-get install $packages" >&2
    if [ "${CI:-}" = true ]; then
        exit 1
    fi
fi
