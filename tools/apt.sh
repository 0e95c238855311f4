# apt_install PACKAGE...: install Debian packages if this user may. Status 1: not possible.
# Sourced by the other scripts; `APT=no` keeps them from installing anything.

apt_install() {
    [ "${APT:-yes}" != no ] || return 1
    command -v apt-get >/dev/null 2>&1 || return 1
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        as_root="sudo -n"
    else
        return 1
    fi
    apt_log=$(mktemp)
    if [ -z "${apt_updated:-}" ]; then
        echo "==> apt-get update"
        $as_root apt-get update -qq >"$apt_log" 2>&1 || cat "$apt_log" >&2
        apt_updated=1
    fi
    echo "==> apt-get install $* (APT=no keeps this from happening)"
    apt_status=0
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends "$@" >"$apt_log" 2>&1 ||
        { apt_status=1; tail -n 5 "$apt_log" >&2; }
    rm -f "$apt_log"
    return $apt_status
}
