#!/usr/bin/env bash
# Runs a command in a disposable Debian 13 root that has everything Lorica builds with.
#
#   scripts/devroot.sh [--] COMMAND [ARGUMENTS…]
#
# The root is made on the first call (about two minutes, 1.5 GB) and kept in
# ${LORICA_DEVROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/lorica/devroot-trixie}; delete that folder to be rid of it.
# Only the system's own folders are its own: the home folder, the checkout, /tmp, /mnt, /srv, … are the host's, at the
# same paths. They are mounted in the command's own mount namespace, so nothing stays mounted. Working directory,
# environment, signals and exit status pass through. Needs root, to mount and to change the root, on every call, and
# Debian or Ubuntu; its packages come from Debian's mirror, and nothing else is downloaded here.
set -euo pipefail

# The one list of packages. An existing root is brought up to date when it changes.
packages=(
    build-essential ca-certificates clang-format cmake curl git libbenchmark-dev libgmock-dev libgtest-dev libhwy-dev
    maven ninja-build openjdk-21-jdk-headless pkg-config python3 unzip
)
backports_packages=(libggml-dev)

suite=trixie
checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck source=scripts/mirror.sh
source "$checkout/scripts/mirror.sh"
root=${LORICA_DEVROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/lorica/devroot-$suite}
marker=etc/lorica-devroot # holds the hash of the package list that the root was made from
stamp=$(printf '%s\n' "$suite" "${packages[@]}" -- "${backports_packages[@]}" | sha256sum | cut -c1-16)
admin_certificates=/usr/local/share/ca-certificates

die() {
    printf 'devroot: %s\n' "$*" >&2
    exit 1
}

[ "${1-}" != -- ] || shift
[ $# -gt 0 ] || die "usage: scripts/devroot.sh [--] COMMAND [ARGUMENTS…]"
[ ! -e "/$marker" ] || exec "$@"

# Where the libraries of the host's NVIDIA driver are in the root, when it has one: a memory file system, so that none stays there.
driver_folder=/run/lorica-driver

# Run by a shell in a mount namespace of its own. Arguments: the root, the folders to bind, one per line with ":ro" behind
# those that are read-only, the libraries to show in $driver_folder, likewise, the working directory, the command.
# shellcheck disable=SC2016
enter='
    set -euo pipefail
    root=$1 binds=$2 driver=$3 directory=$4
    shift 4
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount --rbind /sys "$root/sys"
    if [ -e /etc/resolv.conf ]; then
        [ ! -L "$root/etc/resolv.conf" ] || rm "$root/etc/resolv.conf"
        [ -e "$root/etc/resolv.conf" ] || : >"$root/etc/resolv.conf"
        mount --bind "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
    fi
    while IFS= read -r bind; do
        [ -n "$bind" ] || continue
        path=${bind%:ro}
        mkdir -p "$root$path"
        mount --rbind "$path" "$root$path"
        [ "$path" = "$bind" ] || mount -o remount,bind,ro "$root$path"
    done <<<"$binds"
    if [ -n "$driver" ]; then
        folder=$root/run/lorica-driver # as $driver_folder
        mkdir -p "$folder"
        mount -t tmpfs tmpfs "$folder"
        while IFS= read -r library; do
            : >"$folder/${library##*/}"
            mount --bind "$(readlink -f "$library")" "$folder/${library##*/}"
        done <<<"$driver"
    fi
    cd "$directory"
    exec chroot "$root" /usr/bin/env -C "$directory" "$@"
'
in_namespace=(unshare --mount --propagation private)

add_certificates() {
    [ -d "$admin_certificates" ] || return 0
    mkdir -p "$1$admin_certificates"
    cp -RL "$admin_certificates/." "$1$admin_certificates/"
}

install_packages() {
    local target=$1 main_line
    printf '#!/bin/sh\nexit 101\n' >"$target/usr/sbin/policy-rc.d"
    chmod +x "$target/usr/sbin/policy-rc.d"
    printf 'force-unsafe-io\npath-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\n' \
        >"$target/etc/dpkg/dpkg.cfg.d/lorica"
    {
        printf 'APT::Install-Recommends "false";\nAcquire::Languages "none";\n'
        apt-config dump | grep -E '^Acquire::(http|https)::([^ ]*::)?(Proxy|CaInfo)' || true
    } >"$target/etc/apt/apt.conf.d/90lorica"
    # debootstrap wrote the suite's line; backports is the same mirror
    main_line=$(grep -m1 -E "^deb .* $suite " "$target/etc/apt/sources.list")
    printf '%s\n' "${main_line/ $suite / $suite-backports }" >"$target/etc/apt/sources.list.d/backports.list"
    add_certificates "$target"
    # shellcheck disable=SC2016
    "${in_namespace[@]}" bash -c "$enter" enter "$target" "" "" / \
        -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 /bin/sh -euxc '
            backports=$1
            shift
            apt-get update
            apt-get install -y "$@"
            # shellcheck disable=SC2086 # a list of words
            apt-get install -y -t "$0-backports" $backports
            update-ca-certificates --fresh
            apt-get clean
        ' "$suite" "${backports_packages[*]}" "${packages[@]}" </dev/null
    printf '%s\n' "$stamp" >"$target/$marker"
}

make_root() {
    local partial=$1 mirror
    if ! command -v debootstrap >/dev/null; then
        DEBIAN_FRONTEND=noninteractive apt-get install -y debootstrap debian-archive-keyring ||
            { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y debootstrap debian-archive-keyring; }
    fi
    mirror=$(host_mirror)
    rm -rf --one-file-system "$partial"
    mkdir -p "$partial"
    # The script is named because a debootstrap older than the suite does not know it; all of Debian's are the same file.
    "${in_namespace[@]}" debootstrap --variant=minbase --include=ca-certificates \
        "$suite" "$partial" "$mirror" /usr/share/debootstrap/scripts/sid
    install_packages "$partial"
}

# Both steps keep a log and show its end only on failure.
logged() {
    local what=$1 started=$SECONDS
    shift
    printf 'devroot: %s (log: %s)\n' "$what" "$log" >&2
    # In the background because "set -e" is not obeyed inside a condition.
    "$@" >"$log" 2>&1 </dev/null &
    if ! wait $!; then
        tail -n 25 "$log" >&2
        die "that failed; the whole log is $log"
    fi
    printf 'devroot: ready after %d s\n' $((SECONDS - started)) >&2
}

prepare_root() {
    local log=$root.log
    mkdir -p "$(dirname "$root")"
    # One caller builds, the others wait; the lock is given back before the command runs.
    exec 9>"$root.lock"
    flock 9
    if [ ! -e "$root/$marker" ]; then
        [ ! -e "$root" ] || die "$root exists and is not a root that this script made: move it away"
        logged "making a Debian 13 root in $root, once, about two minutes" make_root "$root.partial"
        mv "$root.partial" "$root"
    elif [ "$(cat "$root/$marker")" != "$stamp" ]; then
        logged "updating the Debian 13 root in $root to the changed package list" install_packages "$root"
    fi
    exec 9>&-
}

if [ "$(uname -s)" != Linux ] || ! command -v apt-get >/dev/null; then
    die "this needs Debian or Ubuntu; elsewhere install g++ 13+, cmake, ninja, ggml, highway, googletest, JDK 21+, maven"
fi
[ "$(id -u)" = 0 ] ||
    die "this needs root, to mount and chroot: run 'sudo -E scripts/devroot.sh …', or install the packages listed in it"
"${in_namespace[@]}" true 2>/dev/null ||
    die "mount namespaces are not permitted here (a container without CAP_SYS_ADMIN?): install the packages listed in this script"

[ "$(cat "$root/$marker" 2>/dev/null)" = "$stamp" ] || prepare_root

binds=
bind() { # a folder that an earlier one does not already show
    local earlier
    [ -d "${1%:ro}" ] || return 0
    while IFS= read -r earlier; do
        case ${1%:ro}/ in "${earlier%:ro}"/*) [ -z "$earlier" ] || return 0 ;; esac
    done <<<"$binds"
    binds+=$1$'\n'
}
for folder in /*; do
    case $folder in
        /bin | /boot | /dev | /etc | /lib* | /lost+found | /proc | /run | /sbin | /sys | /usr | /var) ;;
        *) [ -L "$folder" ] || bind "$folder" ;;
    esac
done
for folder in "$HOME" "$checkout" "$checkout/../shared" .; do
    [ ! -d "$folder" ] || bind "$(cd "$folder" && pwd -P)"
done

# JDKs of the host's, which the root's own folders hide: tests run on them too, and scripts/package.sh may take its runtime from one. Debian's
# have their settings in /etc.
for folder in /usr/lib/jvm/*/ "${LORICA_RUNTIME_JDK:-}"; do
    [ -n "$folder" ] && [ -x "$folder/bin/javac" ] || continue
    folder=$(cd "$folder" && pwd -P)
    case $folder in */java-21-openjdk-*) continue ;; esac # the root has one
    bind "$folder:ro"
    settings=$(readlink -f "$folder/conf/net.properties" || true)
    case $settings in /etc/java-*) bind "${settings%/*}:ro" ;; esac
done

path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
if nvcc=$(readlink -f "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)") && [ -x "$nvcc" ]; then
    cuda=$(cd "$(dirname "$nvcc")/.." && pwd -P)
    [ -d "$cuda/nvvm" ] || cuda=$(readlink -f /usr/local/cuda) # nvcc was a wrapper around the toolkit
    if [ -x "$cuda/bin/nvcc" ]; then
        bind "$cuda:ro"
        path=$cuda/bin:$path
    fi
fi

# The driver's libraries belong to the host's kernel, and the root's own folders hide them.
driver=$(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | sed -n 's/.*libcuda\.so\.1 (libc6,x86-64.*) => //p' | head -n1 || true)
library_path=()
if [ -n "$driver" ]; then
    driver=$(find "${driver%/*}" -maxdepth 1 \( -name 'libcuda.so.*' -o -name 'libnvidia-*.so.*' \))
    library_path=("LD_LIBRARY_PATH=$driver_folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")
fi

java_home=$(readlink -f "$root"/usr/lib/jvm/java-21-openjdk-* | head -n1)
exec "${in_namespace[@]}" bash -c "$enter" enter "$root" "$binds" "$driver" "$(pwd -P)" \
    -u M2_HOME -u MAVEN_HOME "PATH=$path" "JAVA_HOME=${java_home#"$root"}" "${library_path[@]}" "$@"
