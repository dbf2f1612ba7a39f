#!/usr/bin/env bash
# Runs the tests of everything that reads files (model files, vocabularies, adapters; thousands of damaged ones among
# them) under AddressSanitizer and UndefinedBehaviorSanitizer. Any finding fails the test that met it.
# LORICA_FUZZ_INPUTS=100000 puts that many random changes of sound files through each reader instead of a few; a TMPDIR in memory
# (/dev/shm) makes that faster.
# An argument is a regular expression of other tests to run, as ctest takes it: scripts/test-sanitized.sh .
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# -le 1 ] || die "takes one argument at most: a regular expression of test names"
use_toolchain "$@"
tests=${1:-'^(gguf|tokenizer|adapter|common|fuzz)_'}

native_build=$build/sanitized
mkdir -p "$native_build"
exec 8>"$build/lock"
flock 8

failed=0
# Of the vector kernels, only those for the compiler's own target: all of them take very long to compile like this.
step sanitized-configure "Configuring" configure_native -DLORICA_SANITIZE=address,undefined -DCMAKE_BUILD_TYPE=Debug \
    "-DCMAKE_CXX_FLAGS=-O1 -g1 -DHWY_COMPILE_ONLY_STATIC"
step sanitized-build "Building with sanitizers" cmake --build "$native_build" -j"$jobs"
step sanitized-tests "Tests under sanitizers" \
    ctest --test-dir "$native_build" -R "$tests" -j"$jobs" --no-tests=error --output-on-failure || failed=1
sed -n -e '/tests passed/p' -e '/^The following tests did not run:/,/^$/p' "$build/logs/sanitized-tests.log"
exit $failed
