#!/usr/bin/env bash
# Unpacks packages of Debian into a folder, to build for other systems than this one. Prints the folder, which it fills on the first call.
#
#   scripts/sysroot.sh          the C library of Debian 12 and its headers, 7 MB, for older systems: scripts/package.sh --portable.
#                               In ${XDG_CACHE_HOME:-$HOME/.cache}/lorica/sysroot-bookworm
#   scripts/sysroot.sh arm64    ggml, Highway and GoogleTest of Debian 13 for arm64, 6 MB: scripts/test-arm64.sh. In …/sysroot-arm64
#
# Packages come from Debian's mirror and are checked as apt checks them. Needs apt-get, dpkg-deb and Debian's keys, which the
# Debian 13 root has. LORICA_DEBIAN_MIRROR=URL names the mirror where the system is not Debian; LORICA_SYSROOT=FOLDER a folder with the
# C library that is there already, without links that begin at /.
set -euo pipefail
# shellcheck source=scripts/mirror.sh
source "$(dirname "${BASH_SOURCE[0]}")/mirror.sh"

die() {
    printf 'sysroot: %s\n' "$*" >&2
    exit 1
}

cache=${XDG_CACHE_HOME:-$HOME/.cache}/lorica
keys=/usr/share/keyrings/debian-archive-keyring.gpg
options=(-q)
case $#${1-} in
    0)
        suites=(bookworm) has=usr/include/features.h system="Debian 12"
        packages=(libc6 libc6-dev linux-libc-dev)
        root=${LORICA_SYSROOT:-$cache/sysroot-bookworm}
        [ -z "${LORICA_SYSROOT:-}" ] || [ -e "$root/$has" ] || die "LORICA_SYSROOT is $root, which has no $has"
        ;;
    1arm64)
        suites=(trixie trixie-backports) has=usr/include/ggml.h system="Debian 13 for arm64"
        packages=(libggml-dev libggml0 libhwy-dev libhwy1t64 libgtest-dev libgmock-dev)
        root=$cache/sysroot-arm64
        # As on a machine of that kind, where nothing is installed.
        options+=(-o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::status=/dev/null)
        ;;
    *) die "takes no argument but arm64" ;;
esac

if [ ! -e "$root/$has" ]; then
    command -v apt-get >/dev/null || die "there is no apt-get; unpack ${packages[*]} of $system into $root"
    [ -e "$keys" ] || die "$keys is not there: install debian-archive-keyring"
    mirror=$(host_mirror)
    [ -n "$mirror" ] || die "this system is not Debian, whose mirror could be taken; name one in LORICA_DEBIAN_MIRROR"
    work=$root.partial
    rm -rf "$root" "$work"
    mkdir -p "$work"/{lists,cache/archives}/partial "$work/packages" "$work/root"
    for suite in "${suites[@]}"; do echo "deb [signed-by=$keys] $mirror $suite main"; done >"$work/sources.list"
    options+=(-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$work/lists"
        -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
    {
        apt-get "${options[@]}" update
        # Of the last suite that has it.
        for package in "${packages[@]}"; do
            for ((i = ${#suites[@]} - 1; i >= 0; i--)); do
                ! (cd "$work/packages" && apt-get "${options[@]}" download "$package/${suites[i]}") || break
            done
            ls "$work/packages/${package}_"*.deb
        done
        for package in "$work"/packages/*.deb; do dpkg-deb --extract "$package" "$work/root"; done
    } >&2
    # A link that begins at / would lead out of the folder.
    find "$work/root" -type l -lname '/*' -print0 | while IFS= read -r -d '' link; do
        ln -sfnr "$work/root$(readlink "$link")" "$link"
    done
    mv "$work/root" "$root"
    rm -rf "$work"
fi
printf '%s\n' "$root"
