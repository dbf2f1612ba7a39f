#!/usr/bin/env bash
# Unpacks the C library of Debian 12 and its headers, to build for systems older than this one: scripts/package.sh --portable.
#
#   scripts/sysroot.sh    prints the folder, which it fills on the first call: ${XDG_CACHE_HOME:-$HOME/.cache}/lorica/sysroot-bookworm
#
# Its packages come from Debian's mirror and are checked as apt checks them: 7 MB. Needs apt-get, dpkg-deb and Debian's keys, which the
# Debian 13 root has. LORICA_DEBIAN_MIRROR=URL names the mirror where the system is not Debian; LORICA_SYSROOT=FOLDER a folder that is
# there already.
set -euo pipefail
# shellcheck source=scripts/mirror.sh
source "$(dirname "${BASH_SOURCE[0]}")/mirror.sh"

die() {
    printf 'sysroot: %s\n' "$*" >&2
    exit 1
}

suite=bookworm
packages=(libc6 libc6-dev linux-libc-dev)
keys=/usr/share/keyrings/debian-archive-keyring.gpg
root=${LORICA_SYSROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/lorica/sysroot-$suite}

if [ ! -e "$root/usr/include/features.h" ]; then
    [ -z "${LORICA_SYSROOT:-}" ] || die "LORICA_SYSROOT is $root, which has no usr/include/features.h"
    command -v apt-get >/dev/null || die "there is no apt-get; unpack libc6, libc6-dev and linux-libc-dev of Debian 12 into $root"
    [ -e "$keys" ] || die "$keys is not there: install debian-archive-keyring"
    mirror=$(host_mirror)
    [ -n "$mirror" ] || die "this system is not Debian, whose mirror could be taken; name one in LORICA_DEBIAN_MIRROR"
    work=$root.partial
    rm -rf "$root" "$work"
    mkdir -p "$work"/{lists,cache/archives}/partial "$work/packages" "$work/root"
    echo "deb [signed-by=$keys] $mirror $suite main" >"$work/sources.list"
    options=(-q -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::Lists=$work/lists"
        -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
    {
        apt-get "${options[@]}" update
        (cd "$work/packages" && apt-get "${options[@]}" download "${packages[@]/%//$suite}")
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
