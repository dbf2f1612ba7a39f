#!/usr/bin/env bash
# Compiles the native core for Linux on arm64 on this machine and runs its tests under qemu-aarch64. Needs Debian's g++-aarch64-linux-gnu and
# qemu-user, which it installs in the Debian 13 root; ggml, Highway and GoogleTest are Debian's for arm64 (scripts/sysroot.sh arm64).
#
#   scripts/test-arm64.sh [--all | TESTS]    the tests whose names match the regular expression; without one, those of operations,
#                                            gradients, families, files and the tokenizer. --all: every one, which takes an hour or more
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# What differs from processor to processor is arithmetic and memory; what is left out reads files and is the same code.
tests='^(backend_|cpu_kernels_test|session_test|family_test|gguf_|tokenizer_golden_test|context_|adapter_methods_test|common_|exports)'
case $#${1-} in
    0) ;;
    1--all) tests=. ;;
    1-*) die "there is no option $1; there is --all" ;;
    1*) tests=$1 ;;
    *) die "takes one regular expression, or --all" ;;
esac
use_toolchain "$@"

if ! command -v aarch64-linux-gnu-g++ >/dev/null || ! command -v qemu-aarch64 >/dev/null; then
    in_devroot || die "needs aarch64-linux-gnu-g++ and qemu-aarch64: Debian's packages g++-aarch64-linux-gnu and qemu-user"
    step arm64-tools "g++ for arm64, and qemu" apt-get install -y --no-install-recommends g++-aarch64-linux-gnu qemu-user
fi
LORICA_ARM64_ROOT=$("$checkout/scripts/sysroot.sh" arm64)
export LORICA_ARM64_ROOT

# shellcheck disable=SC2317 # called by step
build_arm64() {
    (cd "$checkout/native" && cmake --preset linux-arm64 "-DLORICA_WERROR=${LORICA_WERROR:-OFF}" && cmake --build --preset linux-arm64 -j"$jobs")
}
# Threads that wait for one another are many more instructions under qemu than on a processor.
# shellcheck disable=SC2317 # called by step
test_arm64() { ctest --test-dir "$build/linux-arm64" -R "$tests" -j"$jobs" --timeout 3600 --no-tests=error --output-on-failure; }

step arm64-build "The native core for arm64, and its tests" build_arm64
failed=0
step arm64-tests "Its tests, under qemu-aarch64" test_arm64 || failed=1
sed -n -e '/tests passed/p' -e '/^The following tests FAILED:/,/^$/p' "$build/logs/arm64-tests.log"
exit $failed
