#!/usr/bin/env bash
# Builds, tests and times the CUDA backend on a machine that has a GPU, CMake 3.28, nvcc and a g++ from 13 on that nvcc takes (14 from
# nvcc 12.8 on), but neither JVM nor network, and prints one table. Each stage reports and the next goes on.
#
#   scripts/gpu-check.sh --pack FOLDER             on a build machine (in scripts/devroot.sh): collects what the other one lacks
#   scripts/gpu-check.sh [--prefix FOLDER] [--quick] [--device cuda:N] [--out FOLDER] [--dry-run]
#
# --prefix   the folder that --pack made: ggml's base library, Highway and GoogleTest with headers and CMake files (6 MB), for
#            systems whose C library is no older than that of the machine that packed it. Without it they must be installed.
# --quick    within ten minutes: the stages in order of what they tell, fewer repetitions, little of compute-sanitizer
# --dry-run  what would be done and with which limits, and which tools are there; needs no GPU
# --build    a folder that is built already (-DLORICA_CUDA=ON; targets as below), instead of building one
# --shapes   of the timings (tiny1b,llama8b); models of random weights are kept below --out
# --out      where logs, the table, results.json and the JSON of the timings go (build/gpu-check)
#
# With PEERS_PYTHON, a Python with torch and peft, training is compared with PyTorch + PEFT on the same GPU.
# Exit status: 0 when every check passed. Timings are reported and not judged.
set -uo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
out=$repository/build/gpu-check prefix='' device=cuda:0 quick='' dry='' build='' shapes=tiny1b,llama8b

die() {
    printf 'gpu-check: %s\n' "$*" >&2
    exit 1
}

pack() {
    local to=$1 libraries
    libraries=/usr/lib/$(uname -m)-linux-gnu
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
    # The newest version of the C library that a packed one asks for.
    grep -aohE 'GLIBC_2\.[0-9]+' "$to"/lib/*.so* | sort -uV | tail -n 1 | sed 's/GLIBC_//' >"$to/glibc"
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
        --pack) [ $# -ge 2 ] || die "--pack needs a folder"; set -e; pack "$2"; exit ;;
        --prefix) [ -d "${2-}" ] || die "--prefix needs a folder"; prefix=$(cd "$2" && pwd -P); shift ;;
        --device)
            [[ ${2-} =~ ^(cpu|cuda(:[0-9]+)?)$ ]] || die "--device is cuda:N, not '${2-}'"
            device=$2
            shift
            ;;
        --build) [ -d "${2-}" ] || die "--build needs a folder"; build=$(cd "$2" && pwd -P); shift ;;
        --shapes) shapes=${2:?--shapes needs names}; shift ;;
        --out) out=${2:?--out needs a folder}; shift ;;
        --quick) quick=yes ;;
        --dry-run) dry=yes ;;
        -h | --help) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit ;;
        *) die "unknown argument $1 (--help)" ;;
    esac
    shift
done

# ---- the table

mkdir -p "$out" || die "cannot make $out"
out=$(cd "$out" && pwd -P)
table=$out/table.md results=$out/results.json
models=$out/models
failed=0 n_results=0
budget=${quick:+570}   # seconds for all of it; none without --quick

in_json() { printf '%s' "$1" | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g'; }
row() { # name, result, detail, seconds
    printf '| %s | %s | %s |\n' "$1" "$2" "$3" | tee -a "$table"
    [ "$n_results" = 0 ] || printf ',\n' >>"$results"
    printf '{"stage": "%s", "result": "%s", "detail": "%s", "seconds": %s}' "$(in_json "$1")" "$(in_json "$2")" \
        "$(in_json "$3")" "${4:-0}" >>"$results"
    n_results=$((n_results + 1))
}
# shellcheck disable=SC2317 # called by the trap
finish() {
    [ -n "$dry" ] || printf '\n]\n' >>"$results"
    [ -z "${writer:-}" ] || kill -- "-$writer" 2>/dev/null
}

# stage NAME LIMIT COMMAND…: sets status, log and took. A stage that begins when the time is up is left out.
stage() {
    local name=$1 limit=$2
    shift 2
    log=$out/$(printf '%s' "$name" | tr -c 'A-Za-z0-9_.\n' -).log took=0
    if [ -n "$dry" ]; then
        printf '%4s s  %-44s %s\n' "$limit" "$name" "$*"
        status=dry
        return
    fi
    if [ -n "$budget" ] && [ "$SECONDS" -ge "$budget" ]; then
        status=late
        row "$name" "left out" "the time was up"
        return
    fi
    [ -z "$budget" ] || [ $((SECONDS + limit)) -le $((budget + 20)) ] || limit=$((budget + 20 - SECONDS))
    local started=$SECONDS
    timeout --kill-after=10 "$limit" "$@" >"$log.out" 2>"$log"
    status=$?
    took=$((SECONDS - started))
}
why() { # the lines that tell what went wrong
    grep -hE 'Failure|[Ee]rror|ERROR SUMMARY|CUDA:|FAILED|cannot|lorica-bench' "$log.out" "$log" 2>/dev/null | head -n 4 | tr '\n|' ';/' | cut -c1-300
}
# A kernel that fails takes the rest of its process with it: each test that failed is run again alone, where every launch is awaited,
# so that an error comes with its kernel's name. Says which still fail.
alone() { # command…
    local test names still='' why_not
    names=$(sed -n 's/^\[  FAILED  \] \([^ ,]*\)\(,.*\)\{0,1\} ([0-9]* ms)$/\1/p' "$log.out" | sort -u)
    [ -n "$names" ] || return 0
    for test in $(head -n 12 <<<"$names"); do
        [ -z "$budget" ] || [ "$SECONDS" -lt "$budget" ] || break
        if ! LORICA_CUDA_SYNC=1 timeout --kill-after=10 60 "$@" --gtest_filter="$test" >"$log.alone" 2>&1; then
            why_not=$(grep -m 1 -hoE 'CUDA: .*|relative error.*' "$log.alone" | cut -c1-120)
            still+="${still:+, }$test${why_not:+ ($why_not)}"
        fi
        cat "$log.alone" >>"$log"
    done
    row "of which alone" "$([ -n "$still" ] && echo FAIL || echo pass)" "$(wc -l <<<"$names") failed together; alone still: ${still:-none}"
}
failure() { # name
    failed=1
    case $status in
        124 | 137) row "$1" "TIME OUT" "after $took s; $(why) ($log)" "$took" ;;
        *) row "$1" FAIL "$(why) ($log)" "$took" ;;
    esac
}
check() { # name, limit, command…: passes or fails
    stage "$@"
    case $status in
        dry | late) ;;
        0)
            local verdict=pass
            ! grep -q '^\[  PASSED  \] 0 tests' "$log.out" || verdict=skipped
            row "$1" "$verdict" "$(grep -hE '^(loss of|\[  PASSED  \]|\[  SKIPPED \]|=+ ERROR SUMMARY)' "$log.out" "$log" | sort -u | head -n 3 | tr '\n' ';' | cut -c1-200)" "$took"
            ;;
        *)
            failure "$1"
            local outcome=$status
            [[ " $* " != *--gtest_filter=* ]] || alone "${@:3}"
            status=$outcome
            ;;
    esac
    [ "$status" = 0 ] || [ "$status" = dry ]
}

# value KEY: of the JSON that the last stage wrote; of a summary its median.
value() { tr -d '\n' <"$log.out" | grep -oE "\"$1\": *(\{[^}]*\"median\": *)?-?[0-9.]+(e[-+]?[0-9]+)?" | head -n 1 | sed -E 's/.*[: ]//'; }
number() { LC_ALL=C awk -v x="${1:-0}" -v by="${2:-1}" -v places="${3:-0}" 'BEGIN { printf "%.*f", places, x * by }'; }
training() { # name, arguments of lorica-bench steps…
    last_loss=
    stage "$1" 150 "$build/lorica-bench" steps "${@:2}" --device "$device" --no-ceiling --repetitions "$repetitions" --cache "$models"
    case $status in
        dry | late) return ;;
        0) cp "$log.out" "${log%.log}.json" ;;
        *) failure "$1"; return ;;
    esac
    last_loss=$(value loss)
    if [ "${LORICA_CUDA_WGMMA:-0}" = 1 ] && ! grep -q ', wgmma' "$log.out"; then
        row "$1" "left out" "this GPU or build has no wgmma" "$took"
        last_loss=
        return
    fi
    row "$1" "$(number "$(value tokens_per_second)") tok/s" "MFU $(number "$(value model_flops_utilization)" 100 1) %, \
$(number "$(value gflops_4n)" 1e-3 1) TFLOP/s as 4N, memory $(number "$(value peak_bytes)" 1e-9 2) GB of $(number "$(value planned_bytes)" 1e-9 2) planned, \
recompute $(grep -oE '"recompute": *(true|false)' "$log.out" | head -n 1 | sed 's/.*: *//'), loss $(number "$last_loss" 1 4)" "$took"
}
decoding() { # name, arguments of lorica-bench decode…
    stage "$1" 150 "$build/lorica-bench" decode "${@:2}" --device "$device" --repetitions "$repetitions" --cache "$models"
    case $status in
        dry | late) return ;;
        0) cp "$log.out" "${log%.log}.json" ;;
        *) failure "$1"; return ;;
    esac
    row "$1" "$(number "$(value decode_tokens_per_second)" 1 1) tok/s" "$(number "$(value ratio_to_memory)" 100 1) % of \
$(number "$(value memory_bytes_per_second)" 1e-9) GB/s, prompt $(number "$(value prompt_tokens_per_second)") tok/s" "$took"
}
kernels() { # name, arguments of lorica-bench: where its time goes, one kernel at a time
    stage "$1" 150 env LORICA_CUDA_PROFILE=1 "$build/lorica-bench" "${@:2}" --device "$device" --repetitions 1 --cache "$models"
    case $status in
        dry | late) return ;;
        0) ;;
        *) failure "$1"; return ;;
    esac
    local dequantize
    dequantize=$(awk '$1 == "kernel" && $2 == "dequantize" { print $5 }' "$log")
    row "$1" "dequantize ${dequantize:-0} %" "$(awk '$1 == "kernel" { printf "%s %s %%; ", $2, $5 }' "$log" | cut -c1-240)" "$took"
}

# ---- what is there

tool() { command -v "$1" >/dev/null && echo yes || echo no; }
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; } # at_least 3.28 VERSION
# Where the toolkit and the driver are when nobody put them on the PATH.
export PATH=$PATH:/usr/local/cuda/bin:/usr/local/nvidia/bin
number_of_device=${device//[!0-9]/} # none: the first
gpu=$(nvidia-smi --id="${number_of_device:-0}" --query-gpu=name,compute_cap,driver_version,memory.total --format=csv,noheader 2>/dev/null | head -n 1)
python=${PEERS_PYTHON:-}
if [ -n "$dry" ]; then
    printf 'GPU: %s\n' "${gpu:-none}"
    for name in cmake nvcc g++ ninja compute-sanitizer timeout; do printf '%s: %s\n' "$name" "$(tool "$name")"; done
    [ -z "$python" ] || printf 'torch and peft in %s: %s\n' "$python" "$("$python" -c 'import peft, torch' 2>/dev/null && echo yes || echo no)"
    [ -z "$prefix" ] || printf 'packed in %s: %s\n' "$prefix" "$(cd "$prefix/lib/cmake" 2>/dev/null && printf '%s ' *)"
    printf '\n'
else
    for name in cmake timeout; do [ "$(tool "$name")" = yes ] || die "there is no $name on the PATH"; done
    if [ -z "$build" ]; then
        [ "$(tool nvcc)" = yes ] || die "there is no nvcc on the PATH"
        found=$(cmake --version | sed -n '1s/.* //p')
        at_least 3.28 "$found" || die "cmake is $found and must be 3.28 or later"
        found=$("${CXX:-g++}" -dumpversion 2>/dev/null || echo 0)
        at_least 13 "$found" || die "${CXX:-g++} is ${found/#0/not there} and must be 13 or later"
    fi
    if [ -n "$prefix" ]; then
        needed=$(cat "$prefix/glibc" 2>/dev/null || echo 0) found=$(getconf GNU_LIBC_VERSION | sed 's/.* //')
        at_least "$needed" "$found" || die "the C library here is $found, and what is packed in $prefix needs $needed: pack it on an older system"
    fi
    [ "$device" = cpu ] || [ -n "$gpu" ] || [ -n "${LORICA_CUDA_ON_CPU_MACHINE:-}" ] ||
        printf 'gpu-check: nvidia-smi names no %s; going on, for compute capability 9.0\n' "$device" >&2
    : >"$table"
    printf '[\n' >"$results"
    trap finish EXIT
    {
        printf '# %s: %s; nvcc %s\n\n' "$(git -C "$repository" rev-parse --short HEAD 2>/dev/null || echo 'no revision')" \
            "${gpu:-no GPU}" "$(nvcc --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')"
        printf '| what | result | detail |\n| --- | --- | --- |\n'
    } | tee -a "$table"
fi
repetitions=5
[ -z "$quick" ] || repetitions=3

# ---- building

if [ -z "$build" ]; then
    build=$out/build
    capability=$(printf '%s' "$gpu" | cut -d, -f2 | tr -dc 0-9)
    [ "$capability" != 90 ] || capability=90a
    generator=()
    [ "$(tool ninja)" = no ] || generator=(-G Ninja)
    check configure 120 cmake -S "$repository/native" -B "$build" "${generator[@]}" -DLORICA_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="${capability:-90a}" \
        ${prefix:+-DCMAKE_PREFIX_PATH="$prefix"} -DCMAKE_BUILD_TYPE=Release -DFETCHCONTENT_FULLY_DISCONNECTED=ON || exit 1
    check build 600 cmake --build "$build" -j "$(nproc)" --target lorica_cuda backend_parity_test cuda_session_test lorica-bench || exit 1
fi
export LORICA_TEST_DEVICES=$device
export LD_LIBRARY_PATH=${prefix:+$prefix/lib:}${LD_LIBRARY_PATH-}

# Models of random weights take a while to write, on the CPU: meanwhile the GPU is tested.
writer=
if [ -z "$dry" ]; then
    set -m # a process group of its own, to be ended as a whole
    (
        for shape in ${shapes//,/ }; do
            nice "$build/lorica-bench" decode --device cpu --shape "$shape" --type q4_k --cache "$models" --prompt 1 --generate 1 --repetitions 1
        done
    ) >"$out/models.log" 2>&1 &
    writer=$!
    set +m
fi

# ---- checks

parity=$build/backend_parity_test session=$build/cuda_session_test
check "operations against the reference" 240 "$parity" --gtest_filter='*BackendParity*'
check "whole model: gradients, recorded steps, generation" 180 "$session" --gtest_filter='-*ManySteps*'
check "wgmma: products against the reference" 120 env LORICA_CUDA_WGMMA=1 "$parity" --gtest_filter='*BackendParity.Linear*bf16:*BackendParity.Head*bf16'
check "wgmma: whole model" 120 env LORICA_CUDA_WGMMA=1 "$session" --gtest_filter='*Gradients*:*Recorded*'
check "loss of 200 steps against cpu" 180 env LORICA_TEST_CUDA_STEPS=200 "$session" --gtest_filter='*ManySteps*'

# ---- timings

if [ -n "$writer" ]; then
    while kill -0 "$writer" 2>/dev/null && { [ -z "$budget" ] || [ "$SECONDS" -lt "$budget" ]; }; do sleep 1; done
fi
for shape in ${shapes//,/ }; do
    common=(--shape "$shape" --type q4_k --sequence-length 2048)
    for tokens in 2048 8192; do
        training "$shape Q4_K, $tokens tokens" "${common[@]}" --tokens "$tokens"
        mma_loss=$last_loss
        LORICA_CUDA_WGMMA=1 training "$shape Q4_K, $tokens tokens, wgmma" "${common[@]}" --tokens "$tokens"
        if [ -z "$dry" ] && [ "$status" = 0 ] && [ -n "$mma_loss" ] && [ -n "$last_loss" ]; then
            verdict=$(LC_ALL=C awk -v a="$mma_loss" -v b="$last_loss" 'BEGIN { print (a - b) ^ 2 < (0.01 * a) ^ 2 ? "pass" : "FAIL" }')
            [ "$verdict" = pass ] || failed=1
            row "$shape, loss with and without wgmma" "$verdict" "$last_loss, $mma_loss"
        fi
    done
    LORICA_CUDA_GRAPHS=0 training "$shape Q4_K, 2048 tokens, no graphs" "${common[@]}" --tokens 2048
    kernels "$shape Q4_K, 2048 tokens, kernels" steps --no-ceiling "${common[@]}" --tokens 2048
    LORICA_CUDA_WGMMA=1 kernels "$shape Q4_K, 8192 tokens, wgmma, kernels" steps --no-ceiling "${common[@]}" --tokens 8192
    decoding "$shape Q4_K, decoding" --shape "$shape" --type q4_k
    LORICA_CUDA_GRAPHS=0 decoding "$shape Q4_K, decoding, no graphs" --shape "$shape" --type q4_k
    kernels "$shape Q4_K, decoding, kernels" decode --shape "$shape" --type q4_k --prompt 1
done

# ---- compute-sanitizer

if [ "$(tool compute-sanitizer)" = yes ] || [ -n "$dry" ]; then
    # An allocation that must fail is no error of ours, hence the filters.
    small='*BackendParity.LinearOverShapes*:*BackendParity.LinearOfManyRows*:*BackendParity.Attention*:*BackendParity.HeadOverShapes*:*BackendParity.Rmsnorm*:*BackendParity.Rope*:*BackendParity.*BehindANorm*:*BackendParity.Swiglu*:*Dora*:*8bit*'
    [ -z "$quick" ] || small='*BackendParity.LinearOfManyRows*:*BackendParity.AttentionOverACache*'
    sanitizer=(compute-sanitizer --error-exitcode 9)
    check "memcheck of operations" 600 "${sanitizer[@]}" --tool memcheck "$parity" --gtest_filter="$small"
    check "memcheck of operations, wgmma" 300 env LORICA_CUDA_WGMMA=1 "${sanitizer[@]}" --tool memcheck "$parity" --gtest_filter='*LinearOfManyRows*bf16'
    check "memcheck of a session" 600 "${sanitizer[@]}" --tool memcheck "$session" --gtest_filter='*Dropout*'
    if [ -z "$quick" ]; then
        check "racecheck of operations" 900 "${sanitizer[@]}" --tool racecheck "$parity" --gtest_filter='*AttentionOverACache*:*LinearOfManyRows*:*8bit*:*Dora*'
        check "initcheck of a session" 600 "${sanitizer[@]}" --tool initcheck "$session" --gtest_filter='*Dropout*'
    fi
else
    row "compute-sanitizer" "left out" "it is not on the PATH"
fi

# ---- PyTorch + PEFT

if [ -n "$python" ] && { [ -n "$dry" ] || "$python" -c 'import peft, torch; assert torch.cuda.is_available()' 2>/dev/null; }; then
    stage "PyTorch + PEFT in turns" 600 "$python" "$repository/scripts/bench_peers.py" steps --bench "$build/lorica-bench" --output "$out" \
        --device "$device" --type q4_k --cache "$models" --shapes "$shapes" --tokens 2048 --length 2048
    case $status in
        dry | late) ;;
        0) row "PyTorch + PEFT in turns" "done" "$(grep -h 'ratio' "$log" | tr '\n' ';')" "$took" ;;
        *) failure "PyTorch + PEFT in turns" ;;
    esac
elif [ -z "$dry" ]; then
    row "PyTorch + PEFT" "left out" "PEERS_PYTHON names no Python with torch on a GPU and peft"
fi

[ -n "$dry" ] || printf '\nThe table is in %s, as JSON in %s; logs and the JSON of the timings are beside them.\n' "$table" "$results"
exit "$failed"
