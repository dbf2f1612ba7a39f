#!/usr/bin/env bash
# Compiles the native core for Linux on arm64 on this machine and runs its tests under qemu-aarch64. Needs Debian's g++-aarch64-linux-gnu and
# qemu-user, which it installs in the Debian 13 root; ggml, Highway and GoogleTest are Debian's for arm64 (scripts/sysroot.sh arm64).
#
#   scripts/test-arm64.sh [--whole] [PROGRAM…]    test programs of native/tests; without one, all but those of GPUs
#
# qemu takes tens of times as long as a processor, so of the programs with the same entries for each device those of the plain loops, which
# are the same on every processor, are left out (entries_of below). --whole runs them too.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

entries_of() { # of a test program, as GoogleTest's filter
    case $whole$1 in
        backend_parity*_test) echo '-*/reference_*' ;;
        model_golden_test) echo '*_on_cpu*' ;;
        # Under qemu a process has no limits of memory.
        *common_thread_pool_test) echo '-Machine.LimitsOfTheProcessCount:Machine.AddressesOfAMappedFileAreNotCountedTwice' ;;
        *) echo '*' ;;
    esac
}

arguments=("$@") whole=
if [ "${1-}" = --whole ]; then
    whole=whole-
    shift
fi
programs=("$@")
[ $# -gt 0 ] || readarray -t programs < <(all_tests)
for program in "${programs[@]}"; do
    [ -e "$checkout/native/tests/$program.cpp" ] || die "there is no native/tests/$program.cpp"
done
use_toolchain "${arguments[@]}"

if ! command -v aarch64-linux-gnu-g++ >/dev/null || ! command -v qemu-aarch64 >/dev/null; then
    in_devroot || die "needs aarch64-linux-gnu-g++ and qemu-aarch64: Debian's packages g++-aarch64-linux-gnu and qemu-user"
    step arm64-tools "g++ for arm64, and qemu" apt-get install -y --no-install-recommends g++-aarch64-linux-gnu qemu-user
fi
LORICA_ARM64_ROOT=$("$checkout/scripts/sysroot.sh" arm64)
export LORICA_ARM64_ROOT

# shellcheck disable=SC2317 # called by step
build_arm64() {
    cd "$checkout/native" && cmake --preset linux-arm64 "-DLORICA_WERROR=${LORICA_WERROR:-OFF}" &&
        cmake --build --preset linux-arm64 -j"$jobs" --target lorica "${programs[@]}"
}

step arm64-build "The native core for arm64" build_arm64
failed=0
for program in "${programs[@]}"; do
    step "arm64-$program" "$program" test_elsewhere "$build/linux-arm64/$program" "$(entries_of "$program")" \
        qemu-aarch64 -L /usr/aarch64-linux-gnu || failed=1
    sed -n 's/^total:/   /p' "$build/logs/arm64-$program.log"
done
exit $failed
