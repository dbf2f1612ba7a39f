# Sourced: where packages of Debian come from.

host_mirror() { # prints LORICA_DEBIAN_MIRROR or else the mirror that this system's apt uses, if it is Debian; or nothing
    [ -z "${LORICA_DEBIAN_MIRROR:-}" ] || {
        printf '%s\n' "$LORICA_DEBIAN_MIRROR"
        return 0
    }
    # shellcheck disable=SC1091
    (. /etc/os-release && [ "${ID-}" = debian ]) || return 0
    apt-get update --print-uris 2>/dev/null |
        sed -n "s|^'\(https\{0,1\}://[^' ]*\)/dists/[a-z]*/InRelease'.*|\1|p" | grep -m1 '/debian$' || true
}
