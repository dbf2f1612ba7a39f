#!/usr/bin/env bash
# Compiles the native core for Linux on arm64 on this machine and runs its tests under qemu-aarch64. Needs Debian's g++-aarch64-linux-gnu and
# qemu-user, which it installs in the Debian 13 root; ggml, Highway and GoogleTest are Debian's for arm64 (scripts/sysroot.sh arm64).
#
#   scripts/test-arm64.sh [PROGRAM…]    test programs of native/tests; without one, those of operations, gradients, families and block
#                                       formats, which is where a processor makes a difference
#
# qemu takes tens of times as long as a processor.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

programs=("$@")
[ $# -gt 0 ] || programs=(backend_parity_test session_test family_test gguf_dequantize_test)
for program in "${programs[@]}"; do
    [ -e "$checkout/native/tests/$program.cpp" ] || die "there is no native/tests/$program.cpp"
done
use_toolchain "$@"

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
# Of the devices the CPU alone: plain loops, to compare with, are computed for each operation anyway.
# shellcheck disable=SC2317 # called by step
test_arm64() {
    local any
    any=$(IFS='|' && echo "${programs[*]}")
    LORICA_TEST_DEVICES=cpu ctest --test-dir "$build/linux-arm64" -R "^($any)\\." -j"$jobs" --timeout 3600 --no-tests=error --output-on-failure
}

step arm64-build "The native core for arm64" build_arm64
failed=0
step arm64-tests "Its tests, under qemu-aarch64" test_arm64 || failed=1
sed -n -e '/tests passed/p' -e '/^The following tests FAILED:/,/^$/p' "$build/logs/arm64-tests.log"
exit $failed
