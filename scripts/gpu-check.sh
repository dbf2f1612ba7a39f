#!/usr/bin/env bash
# Builds, tests and times the CUDA backend on a machine that has a GPU, CMake, nvcc and g++, but neither JVM nor network, and prints
# one table.
#
#   scripts/gpu-check.sh --pack FOLDER             on a build machine (in scripts/devroot.sh): collects what the other one lacks
#   scripts/gpu-check.sh [--prefix FOLDER] [--quick] [--device cuda:N] [--out FOLDER]
#
# --prefix   the folder that --pack made: ggml's base library, Highway and GoogleTest with headers and CMake files (6 MB). Without
#            it they must be installed.
# --quick    no compute-sanitizer, no models of 1 and 8 billion weights
# --out      where logs, the table and the JSON of the timings go (build/gpu-check)
#
# Exit status: 0 when every check passed. Timings are reported and not judged.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
out=$repository/build/gpu-check prefix= device=cuda:0 quick=

die() {
    printf 'gpu-check: %s\n' "$*" >&2
    exit 1
}

pack() {
    local to=$1 libraries=/usr/lib/$(uname -m)-linux-gnu
    mkdir -p "$to/include" "$to/lib/cmake"
    cp /usr/include/{ggml*.h,gguf.h} "$to/include/"
    cp -r /usr/include/{hwy,gtest,gmock} "$to/include/"
    cp -P "$libraries"/libggml-base.so* "$libraries"/libhwy.so* "$libraries"/lib{gtest,gmock}*.a "$to/lib/"
    # Only what Lorica asks of the packages: the distribution's own CMake files name paths and libraries that do not travel.
    mkdir -p "$to/lib/cmake/"{ggml,hwy,GTest}
    local version
    version=$(sed -n 's/.*LORICA_GGML_VERSION \([0-9.]*\).*/\1/p' "$repository/cmake/ggml.cmake" | head -n1)
    config ggml ggml "$version" 'lorica_import(ggml::ggml-base SHARED libggml-base.so)' >"$to/lib/cmake/ggml/ggml-config.cmake"
    config hwy hwy 1.2.0 'lorica_import(hwy::hwy SHARED libhwy.so)' >"$to/lib/cmake/hwy/hwy-config.cmake"
    {
        config GTest GTest 1.16.0 'find_package(Threads REQUIRED)
lorica_import(GTest::gtest STATIC libgtest.a Threads::Threads)
lorica_import(GTest::gmock STATIC libgmock.a GTest::gtest)
lorica_import(GTest::gtest_main STATIC libgtest_main.a GTest::gtest)'
    } >"$to/lib/cmake/GTest/gtest-config.cmake"
    local name
    for name in ggml hwy gtest; do
        # shellcheck disable=SC2016
        printf 'set(PACKAGE_VERSION ${PACKAGE_FIND_VERSION})\nset(PACKAGE_VERSION_COMPATIBLE TRUE)\nset(PACKAGE_VERSION_EXACT TRUE)\n' \
            >"$to/lib/cmake/${name/gtest/GTest}/$name-config-version.cmake"
    done
    du -sh "$to"
}

config() { # package, prefix of its variables, version, targets
    # shellcheck disable=SC2016
    printf '# %s %s, packed by gpu-check.sh\nset(%s_VERSION %s)\n%s\n%s\n' "$1" "$3" "$2" "$3" 'get_filename_component(lorica_packed "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
macro(lorica_import target kind file)
    if(NOT TARGET ${target})
        add_library(${target} ${kind} IMPORTED)
        set_target_properties(${target} PROPERTIES
            IMPORTED_LOCATION "${lorica_packed}/lib/${file}"
            INTERFACE_INCLUDE_DIRECTORIES "${lorica_packed}/include"
            INTERFACE_LINK_LIBRARIES "${ARGN}")
    endif()
endmacro()' "$4"
}

while [ $# -gt 0 ]; do
    case $1 in
        --pack) [ $# -ge 2 ] || die "--pack needs a folder"; pack "$2"; exit ;;
        --prefix) prefix=$(cd "${2:?--prefix needs a folder}" && pwd -P); shift ;;
        --device) device=${2:?--device needs a name}; shift ;;
        --out) out=${2:?--out needs a folder}; shift ;;
        --quick) quick=yes ;;
        -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit ;;
        *) die "unknown argument $1 (--help)" ;;
    esac
    shift
done

command -v nvcc >/dev/null || die "there is no nvcc on the PATH"
command -v nvidia-smi >/dev/null && nvidia-smi -L | grep -q . || die "there is no GPU: nvidia-smi lists none"
mkdir -p "$out"
build=$out/build
table=$out/table.md
: >"$table"
failed=0

row() { printf '| %s | %s | %s |\n' "$1" "$2" "$3" | tee -a "$table"; }
# name, command…: a check; its log is kept, its last line of interest goes into the table
check() {
    local name=$1 log=$out/${1// /-}.log started=$SECONDS
    shift
    if "$@" >"$log" 2>&1; then
        row "$name" pass "$(grep -hE '^(loss of|\[  PASSED  \]|=+ ERROR SUMMARY)' "$log" | tr '\n' ';' | cut -c1-160) ($((SECONDS - started)) s)"
    else
        failed=1
        row "$name" FAIL "$(grep -hE 'Failure|error|ERROR SUMMARY|CUDA:' "$log" | head -n 3 | tr '\n' ';' | cut -c1-240) ($log)"
    fi
}
timing() { # name, arguments of lorica-bench…
    local name=$1 log=$out/${1// /-}
    shift
    if "$build/lorica-bench" "$@" --device "$device" >"$log.json" 2>"$log.log"; then
        row "$name" "$(grep -oE '"(prompt_|decode_)?tokens_per_second": *(\{[^}]*"median": *)?[0-9.e+]+' "$log.json" | sed 's/.*: *//' | paste -sd/) tok/s" \
            "$(tail -n 1 "$log.log" | tr -s ' |' ' ' | cut -c1-120)"
    else
        failed=1
        row "$name" FAIL "$(tail -n 1 "$log.log" | cut -c1-240)"
    fi
}

{
    printf '# %s, %s, driver %s, nvcc %s\n\n' "$(git -C "$repository" rev-parse --short HEAD 2>/dev/null || echo 'no revision')" \
        "$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n1)" \
        "$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n1)" \
        "$(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')"
    printf '| what | result | detail |\n| --- | --- | --- |\n'
} | tee -a "$table"

capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n1 | tr -d .)
check configure cmake -S "$repository/native" -B "$build" -DLORICA_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="$capability" \
    ${prefix:+-DCMAKE_PREFIX_PATH="$prefix"} -DCMAKE_BUILD_TYPE=Release -DFETCHCONTENT_FULLY_DISCONNECTED=ON
[ "$failed" = 0 ] || exit 1
check build cmake --build "$build" -j "$(nproc)" --target lorica_cuda backend_parity_test cuda_session_test lorica-bench
[ "$failed" = 0 ] || exit 1

export LORICA_TEST_DEVICES=$device
export LD_LIBRARY_PATH=${prefix:+$prefix/lib:}${LD_LIBRARY_PATH-}
check "operations against the reference" "$build/backend_parity_test" --gtest_filter='*BackendParity*'
check "whole model, gradients and generation" "$build/cuda_session_test" --gtest_filter=-'*ManySteps*'
LORICA_TEST_CUDA_STEPS=200 check "loss of 200 steps against cpu" "$build/cuda_session_test" --gtest_filter='*ManySteps*'

if [ -z "$quick" ] && command -v compute-sanitizer >/dev/null; then
    small='*BackendParity.LinearOverShapes*:*BackendParity.Attention*:*BackendParity.HeadOverShapes*:*BackendParity.Rmsnorm*:*BackendParity.Swiglu*'
    # An allocation that must fail is no error of ours, hence the filter.
    check "memcheck of operations" compute-sanitizer --tool memcheck --error-exitcode 9 "$build/backend_parity_test" --gtest_filter="$small"
    check "racecheck of attention" compute-sanitizer --tool racecheck --error-exitcode 9 "$build/backend_parity_test" --gtest_filter='*BackendParity.AttentionOverACache*'
    check "memcheck of a session" compute-sanitizer --tool memcheck --error-exitcode 9 "$build/cuda_session_test" --gtest_filter='*Dropout*'
fi

timing "step s135 Q4_0" steps --shape s135 --type q4_0 --tokens 8192 --sequence-length 2048 --no-ceiling
if [ -z "$quick" ]; then
    cache=$out/models
    timing "step tiny1b Q4_K" steps --shape tiny1b --type q4_k --tokens 16384 --sequence-length 2048 --no-ceiling --cache "$cache"
    timing "decode tiny1b Q4_K" decode --shape tiny1b --type q4_k --cache "$cache"
    timing "step llama8b Q4_K" steps --shape llama8b --type q4_k --tokens 8192 --sequence-length 2048 --no-ceiling --cache "$cache"
    timing "decode llama8b Q4_K" decode --shape llama8b --type q4_k --cache "$cache"
fi
printf '\nThe table is in %s, logs and JSON beside it.\n' "$table"
exit "$failed"
