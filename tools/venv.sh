#!/bin/sh
# Make the virtual environment and install this folder into it.
#
#   venv.sh python PYTHON                  check the interpreter
#   venv.sh install PYTHON VENV TARGET [PACKAGE...]
#                                          editable install of TARGET, quietly
set -eu

python=$2

check_python() {
    if ! command -v "$python" >/dev/null 2>&1; then
        echo "No $python here. On Debian and Ubuntu: apt-get install python3 python3-venv" >&2
        exit 1
    fi
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        echo "$("$python" -V) is too old: Python 3.10 or newer is needed." >&2
        echo "Another one can be named: make demo PYTHON=python3.12" >&2
        exit 1
    fi
}

# Debian and Ubuntu keep the parts that make an environment in a package of their own.
provide_venv() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null && return
    version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    . "$(dirname "$0")/apt.sh"
    apt_install "$version" || apt_install python3-venv || true
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$python cannot make virtual environments." >&2
        echo "On Debian and Ubuntu: apt-get install $version" >&2
        exit 1
    fi
}

make_venv() {
    # An interrupted attempt, or a Python that is gone, leaves a folder that cannot run pip.
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 && return
    provide_venv
    echo "==> Making $venv"
    rm -rf "$venv"
    "$python" -m venv "$venv"
}

case $1 in
python)
    check_python
    ;;
install)
    venv=$3
    target=$4
    shift 4
    check_python
    make_venv
    echo "==> Installing $target and what it needs (a minute the first time)"
    # Compiled is what runs, when it does: a tenth of what there is.
    "$venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --editable "$target" "$@"
    ;;
esac
