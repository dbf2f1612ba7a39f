#!/usr/bin/env bash
# Runs every test: the native ones (ctest), then the Java ones (mvn verify). Takes no arguments.
# Logs go to build/logs. With CI=true, warnings of the native sources are errors, and where there is an nvcc the CUDA kernels are
# compiled too, for one GPU, and packed into the program.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# = 0 ] || die "takes no arguments; it runs every test"
use_toolchain "$@"
[ "${CI:-}" != true ] || export LORICA_WERROR=ON

mkdir -p "$build"
exec 8>"$build/lock"
flock 8

failed=0
sources=$(program_fingerprint)
# shellcheck disable=SC2317 # called by step
check_format() {
    if clang-format --version 2>/dev/null | grep -q "version $clang_format_version\."; then
        native_sources | xargs -0 clang-format --dry-run -Werror
    else
        echo "C++ was not looked at: this needs clang-format $clang_format_version" | tee /dev/stderr
    fi && run_maven -Pspark spotless:check
}
step scripts "The scripts themselves" "$checkout/scripts/test-scripts.sh" || failed=1
step format "Formatting (scripts/format.sh mends it)" check_format || failed=1
step native-build "Building the native library and its tests" build_native all
# What build_program builds where nobody tests: it must go on compiling.
# shellcheck disable=SC2317 # called by step
build_for_this_machine() {
    native_build=$build/this-machine
    of_tests=(-DLORICA_TESTS=OFF -DLORICA_CUDA=OFF)
    LORICA_CPU_TARGETS=native build_native lorica
}
step native-this-machine "The native library for this machine alone" build_for_this_machine || failed=1
step native-tests "Native tests" ctest --test-dir "$native_build" -j"$jobs" --no-tests=error --output-on-failure || failed=1
sed -n -e '/tests passed/p' -e '/^The following tests did not run:/,/^$/p' "$build/logs/native-tests.log"

# shellcheck disable=SC2317 # called by step
build_cuda() {
    cmake -S "$checkout/native" -B "$build/cuda" -DLORICA_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=90a &&
        cmake --build "$build/cuda" -j"$jobs" --target lorica_cuda
}
profiles=(-Pspark)
if [ "${CI:-}" = true ] && command -v nvcc >/dev/null; then
    if step cuda-build "Compiling the CUDA kernels" build_cuda; then
        profiles+=(-Pgpu "-Dnative.gpu.build=$build/cuda")
    else
        failed=1
    fi
fi

if step java-tests "Java modules and their tests" run_maven "${profiles[@]}" verify; then
    # With one GPU's kernels it is not what LORICA_GPU=ON asks for, so it is not noted as that.
    program_built "$sources"
    # shellcheck disable=SC2317 # called by step
    find_gpu_library() { (run_program doctor) | tee /dev/stderr | grep 'GPU library with the runtime of CUDA'; }
    ! program_is_current || step quickstart "The quickstart, two steps of each kind" "$checkout/scripts/test-quickstart.sh" || failed=1
    # The tests ran on the Java that builds; on others the program does what everybody does with it.
    # shellcheck disable=SC2317 # called by step
    runs_on() { # runs_on JAVA_HOME
        local work
        work=$(mktemp -d)
        export JAVA_HOME=$1
        (run_program train --model "$checkout/models/austen-7m-q4_0.gguf" --data "$checkout/models/data/pride_and_prejudice_train.json" \
            --output "$work/adapter" --max-samples 4 --max-steps 2) &&
            (run_program generate --model "$checkout/models/austen-7m-q4_0.gguf" --adapter "$work/adapter" \
                --instruction "Who is Mr. Collins?" --max-tokens 4) &&
            (run_program eval --json --model "$checkout/models/austen-7m-q4_0.gguf" --adapter "$work/adapter" \
                --data "$checkout/models/data/pride_and_prejudice_eval.json" --max-samples 2)
        local status=$?
        rm -rf "$work"
        return $status
    }
    if program_is_current; then
        while IFS= read -r home; do
            step "java-$(JAVA_HOME=$home java_release)" "The program on Java $(JAVA_HOME=$home java_release)" runs_on "$home" || failed=1
        done < <(other_jdks)
    fi
    [ ${#profiles[@]} = 1 ] || step gpu-jar "The GPU library in its jar" find_gpu_library || failed=1
else
    failed=1
fi
grep -E '^\[[A-Z]+\] Tests run: [^-]*$' "$build/logs/java-tests.log" || true
# Why tests were skipped, and how many for each reason.
find "$checkout"/java/*/target -path '*-reports/TEST-*.xml' -exec grep -h '<skipped' {} + 2>/dev/null |
    sed -E 's/.*(Assumption failed: |message=")/skipped: /; s/(" type=|\]\]>).*//' | sort | uniq -c || true

if [ $failed != 0 ]; then
    echo "Some tests failed."
    exit 1
fi
