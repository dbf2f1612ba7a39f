#!/usr/bin/env bash
# Tests what scripts/package.sh made on a machine that has nothing: a bare Debian root without Java, made once with debootstrap in
# ${XDG_CACHE_HOME:-$HOME/.cache}/lorica/bare-SUITE (200 MB) and never written to. Needs root, Debian or Ubuntu, and build/package.
#
#   scripts/test-package.sh [SUITE]    bookworm (Debian 12) by default, which runs what --portable made; trixie runs the rest
#
# The archive, unpacked, and the .deb, installed: train, generate and chat on a small model, serve with the studio, completion, manual pages;
# the archive is below 80 MB, and `lorica --version` takes less than 0.3 s of a processor, the best
# of five: as long as that where nothing else runs.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=scripts/mirror.sh
source "$(dirname "${BASH_SOURCE[0]}")/mirror.sh"

suite=${1:-bookworm}
[ $# -le 1 ] || die "takes a suite of Debian, and nothing else"
[ "$(id -u)" = 0 ] || die "needs root, to mount and to change the root"
package=$build/package
archive=$(echo "$package"/lorica-*-linux-*.tar.gz)
deb=$(echo "$package"/lorica_*.deb)
[ -e "$archive" ] && [ -e "$deb" ] || die "there is nothing in $package: scripts/package.sh --portable makes it"
bare=${XDG_CACHE_HOME:-$HOME/.cache}/lorica/bare-$suite

# shellcheck disable=SC2317 # called by step
make_bare() {
    command -v debootstrap >/dev/null || apt-get install -y debootstrap
    rm -rf --one-file-system "$bare.partial"
    mkdir -p "$(dirname "$bare")"
    unshare --mount debootstrap --variant=minbase "$suite" "$bare.partial" "$(host_mirror)" # or debootstrap's own
    mv "$bare.partial" "$bare"
}

# Run in the root. What is in /in is the archive, the package, a model and data.
# shellcheck disable=SC2016
inside='
    set -eu
    cd /root
    ! command -v java || { echo "there is a Java"; exit 1; }
    works() { # works PROGRAM NAME
        "$1" train --model /in/model.gguf --data /in/train.json --output "$2" --max-samples 8 --max-steps 2 --target-modules q_proj
        "$1" generate --model /in/model.gguf --adapter "$2" --instruction "Who is Mr. Collins?" --max-tokens 8 | grep -q .
        printf "Who is Mr. Collins?\n/quit\n" | "$1" chat --model /in/model.gguf --adapter "$2" --max-tokens 8 | grep -q .
        "$1" serve --model /in/model.gguf --port 18080 >served 2>&1 &
        server=$!
        for i in $(seq 100); do grep -q "http://" served && break; kill -0 $server; sleep 0.3; done
        page=$(perl -MIO::Socket::INET -e "
            \$s = IO::Socket::INET->new(q(127.0.0.1:18080)) or die; print \$s qq(GET / HTTP/1.0\r\nHost: 127.0.0.1:18080\r\n\r\n); print <\$s>")
        kill $server
        case $page in *"200 OK"*"<title>"*) ;; *) echo "the studio does not come: $page"; cat served; exit 1 ;; esac
        echo "$1 works"
    }
    mkdir unpacked
    tar -xzf /in/lorica.tar.gz -C unpacked
    home=$(echo /root/unpacked/lorica-*)
    works "$home/bin/lorica" a
    best=9999
    for i in 1 2 3 4 5; do
        took=$(bash -c "TIMEFORMAT=\"%U %S\"; time $home/bin/lorica --version >version" 2>&1 | awk "{ printf \"%d\", 1000 * (\$1 + \$2) }")
        [ $took -gt $best ] || best=$took
    done
    echo "$(cat version): --version takes $best ms"
    [ $best -lt 300 ]
    dpkg -i /in/lorica.deb
    works lorica b
    rm -rf "$home"
    lorica info /in/model.gguf
    for file in bash-completion/completions/lorica zsh/vendor-completions/_lorica fish/vendor_completions.d/lorica.fish man/man1/lorica-train.1.gz; do
        [ -s /usr/share/$file ] || [ "${file#man/}" != "$file" ] || { echo "there is no /usr/share/$file"; exit 1; }
    done
    bash -c ". /usr/share/bash-completion/completions/lorica && complete -p lorica"
    dpkg -r lorica
    [ ! -e /usr/lib/lorica ] || { echo "the package leaves files behind"; exit 1; }
'

# In a mount namespace of its own: the bare root under a layer of memory that takes what is written.
# shellcheck disable=SC2016
enter='
    set -euo pipefail
    bare=$1 in=$2 script=$3
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    mount -t overlay overlay -o "lowerdir=$bare,upperdir=/mnt/upper,workdir=/mnt/work" /mnt/root
    mount -t proc proc /mnt/root/proc
    mount --rbind /dev /mnt/root/dev
    mkdir /mnt/root/in
    mount --bind "$in" /mnt/root/in
    exec chroot /mnt/root /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb sh -c "$script"
'
# shellcheck disable=SC2317 # called by step
run_inside() { unshare --mount --propagation private bash -c "$enter" enter "$bare" "$in" "$inside"; }

# shellcheck disable=SC2317 # called by step
check_size() {
    local size
    size=$(stat -c %s "$archive")
    echo "$size bytes"
    [ "$size" -lt 80000000 ]
}

in=$(mktemp -d)
trap 'rm -rf "$in"' EXIT
ln "$archive" "$in/lorica.tar.gz" 2>/dev/null || cp "$archive" "$in/lorica.tar.gz"
ln "$deb" "$in/lorica.deb" 2>/dev/null || cp "$deb" "$in/lorica.deb"
cp "$checkout/models/austen-7m-q4_0.gguf" "$in/model.gguf"
cp "$checkout/models/data/pride_and_prejudice_train.json" "$in/train.json"

[ -e "$bare" ] || step bare-root "A bare root, Debian's $suite" make_bare
step package-size "The archive is below 80 MB" check_size
step package-runs "Archive and package in a bare $suite" run_inside
grep -E ' works$|takes' "$build/logs/package-runs.log"
