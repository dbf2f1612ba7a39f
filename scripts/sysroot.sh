#!/usr/bin/env bash
# Unpacks the C library of Debian 12 and its headers, to build for systems older than this one: scripts/package.sh --portable.
#
#   scripts/sysroot.sh    prints the folder, which it fills on the first call: ${XDG_CACHE_HOME:-$HOME/.cache}/lorica/sysroot-bookworm
#
# Its packages come from Debian's mirror and are checked as apt checks them: 7 MB. Needs apt-get, dpkg-deb and Debian's keys, which the
# Debian 13 root has. LORICA_SYSROOT=FOLDER names one that is there already.
set -euo pipefail

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
    # The mirror of the root that this runs in, if it is Debian's.
    mirror=$(sed -n 's/^deb \(\[.*\] \)\{0,1\}\(http[^ ]*\/debian\) .*/\2/p' /etc/apt/sources.list 2>/dev/null | head -n1)
    work=$root.partial
    rm -rf "$root" "$work"
    mkdir -p "$work"/{lists,cache/archives}/partial "$work/packages" "$work/root"
    echo "deb [signed-by=$keys] ${mirror:-http://deb.debian.org/debian} $suite main" >"$work/sources.list"
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
