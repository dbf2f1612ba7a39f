#!/usr/bin/env bash
# Tests what the scripts share, in a second: a step ends at its first failure, shows its log, and ends the script that called it.
# Takes no arguments.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

for script in "$checkout"/scripts/*.sh "$checkout/scripts/lorica"; do bash -n "$script"; done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/steps.sh" <<SH
set -euo pipefail
source "$checkout/scripts/common.sh"
build=$work
good() { echo fine; }
bad() { echo begun; false; echo went on; }
piped() { false | cat; echo went on; }
dies() { die "no such thing"; }
step good "A good one" good
"\$@"
echo the script went on
SH
failed=0
check() { # check WANTED COMMAND…: the script fails, and what it says has WANTED, and nothing behind the failure
    local wanted=$1 said status=0
    shift
    said=$(bash "$work/steps.sh" "$@" 2>&1) || status=$?
    if [ $status = 0 ] || ! grep -q "$wanted" <<<"$said" || grep -q 'went on' <<<"$said" || ! grep -q '^A good one .* [0-9]* s$' <<<"$said"; then
        printf 'status %s of: %s\n%s\n' $status "$*" "$said"
        failed=1
    fi
}
check 'A bad one .* s  FAILED' step bad "A bad one" bad
check begun step bad "A bad one" bad
check 'A pipe .* s  FAILED' step piped "A pipe" piped
check 'no such thing' step dies "One that dies" dies
check 'The whole log is' step none "No such command" no-such-command

# Without JAVA_HOME too, Java is found, and what it is: the program starts as it does with one.
if command -v javac >/dev/null; then
    [ -n "$(unset JAVA_HOME && java_release)" ] || { echo "no release of the JDK in PATH was found"; failed=1; }
    mkdir -p "$work/build" && echo host >"$work/build/program.toolchain"
    in_devroot && echo devroot >"$work/build/program.toolchain"
    said=$( (unset JAVA_HOME && build=$work/build program=$work && run_program --version) 2>&1) || true
    grep -q 'lorica-cli.jar' <<<"$said" || { echo "without JAVA_HOME: $said"; failed=1; }
fi
[ $failed = 0 ]
