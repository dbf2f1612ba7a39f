#!/usr/bin/env bash
# Builds, tests and times the CUDA backend on a machine that has a GPU, CMake 3.28, nvcc and a g++ from 13 on that nvcc takes (14 from
# nvcc 12.8 on), but neither JVM nor network, and prints one table. Each stage reports and the next goes on.
#
#   scripts/gpu-check.sh --pack FOLDER             on a build machine (in scripts/devroot.sh): collects what the other one lacks
#   scripts/gpu-check.sh --pack-built FOLDER       builds there, and packs programs and libraries that run without a compiler
#   scripts/gpu-check.sh [--prefix FOLDER | --build FOLDER] [--budget SECONDS] [--device cuda:N] [--out FOLDER] [--dry-run]
#
# --prefix   the folder that --pack made: ggml's base library, Highway and GoogleTest with headers and CMake files (6 MB), for
#            systems whose C library is no older than that of the machine that packed it. Without it they must be installed.
# --build    the folder that --pack-built made, or one that is built already (-DLORICA_CUDA=ON; targets as below)
# --budget   seconds for all of it: stages come in order of what they tell, what does not fit any more is left out, and repetitions
#            and sanitizers are fewer. 240 tells whether the kernels are right and how fast an 8B model is; 600 nearly all
# --dry-run  what would be done and with which limits, and which tools are there; needs no GPU
# --shapes   of the timings (llama8b,tiny1b); models of random weights are kept below --out
# --out      where logs, the table, results.json and the JSON of the timings go (build/gpu-check), all of them in results.tar.gz, too
#
# Every test runs in a process of its own: a kernel that fails or hangs takes no other test with it.
# With PEERS_PYTHON, a Python with torch and peft, training is compared with PyTorch + PEFT on the same GPU.
# Exit status: 0 when every check passed. Timings are reported and not judged.
set -uo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
out=$repository/build/gpu-check prefix='' device=cuda:0 budget='' dry='' build='' shapes=llama8b,tiny1b

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

pack_built() {
    local to=$1 work=$1/build name library
    mkdir -p "$to"
    cmake -S "$repository/native" -B "$work" -DLORICA_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="${CUDAARCHS:-90a}" -DCMAKE_BUILD_TYPE=Release
    cmake --build "$work" -j "$(nproc)" --target lorica_cuda backend_parity_test backend_parity_rows_test cuda_session_test cuda_attention_test lorica-bench
    for name in backend_parity_test backend_parity_rows_test cuda_session_test cuda_attention_test lorica-bench liblorica-cuda.so; do
        strip -o "$to/$name" "$work/$name"
    done
    # What the system there may lack, next to them: see LD_LIBRARY_PATH below.
    for library in $(ldd "$to"/{backend_parity_test,lorica-bench,liblorica-cuda.so} |
        sed -n 's/.* => \(\/[^ ]*\/\(libggml\|libhwy\|libgomp\|libstdc++\|libgcc_s\|libdnnl\|libtbb\)[^ ]*\) .*/\1/p' | sort -u); do
        cp -L "$library" "$to/"
    done
    rm -rf "$work"
    grep -aohE 'GLIBC_2\.[0-9]+' "$to"/* | sort -uV | tail -n 1 | sed 's/GLIBC_//' >"$to/glibc"
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
        --pack-built) [ $# -ge 2 ] || die "--pack-built needs a folder"; set -e; pack_built "$2"; exit ;;
        --prefix) [ -d "${2-}" ] || die "--prefix needs a folder"; prefix=$(cd "$2" && pwd -P); shift ;;
        --device)
            [[ ${2-} =~ ^(cpu|cuda(:[0-9]+)?)$ ]] || die "--device is cuda:N, not '${2-}'"
            device=$2
            shift
            ;;
        --build) [ -d "${2-}" ] || die "--build needs a folder"; build=$(cd "$2" && pwd -P); shift ;;
        --shapes) shapes=${2:?--shapes needs names}; shift ;;
        --out) out=${2:?--out needs a folder}; shift ;;
        --budget)
            [[ ${2-} =~ ^[1-9][0-9]*$ ]] || die "--budget is a number of seconds, not '${2-}'"
            budget=$2
            shift
            ;;
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
failed=0 n_results=0 n_runs=0 parallel=6

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
    [ -n "$dry" ] || (cd "$out" && find . -maxdepth 2 \( -name '*.log' -o -name '*.out' -o -name '*.json' -o -name table.md \) ! -path './build/*' ! -path './models/*' -print0 |
        tar -czf results.tar.gz --null -T - 2>/dev/null)
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
# One test in a process of its own, for `tests`. Writes its exit status and name.
one_test() { # folder, seconds, program, test
    local file=$1/${4//[^A-Za-z0-9_.]/_}.log
    timeout --kill-after=5 "$2" "$3" --gtest_filter="$4" >"$file" 2>&1
    printf '%s %s\n' $? "$4"
}
export -f one_test
# tests NAME LIMIT PROGRAM FILTER: each test alone, several at a time; says which fail, with the kernel's name where a second run
# that awaits every launch gives it, and which hang.
tests() {
    local name=$1 limit=$2 program=$3 filter=$4 folder=$out/tests-$((++n_runs)) list total bad='' hanging='' result test why_not
    if [ -n "$dry" ]; then
        stage "$name" "$limit" "$program" "--gtest_filter=$filter"
        return
    fi
    mkdir -p "$folder"
    list=$("$program" --gtest_filter="$filter" --gtest_list_tests 2>/dev/null | awk '/^[^ ]/ { suite = $1 } /^  / { print suite $1 }')
    total=$(grep -c . <<<"$list")
    if [ "$total" = 0 ]; then
        row "$name" skipped "no such tests"
        return
    fi
    # shellcheck disable=SC2016 # expanded by the inner shell
    stage "$name" "$limit" xargs -P "$parallel" -I{} bash -c 'one_test "$0" 60 "$1" "$2"' "$folder" "$program" {} <<<"$list"
    [ "$status" != late ] || return
    while read -r result test; do
        case $result in
            0) ;;
            124 | 137) hanging+="${hanging:+, }$test" ;;
            *)
                if [ -z "$budget" ] || [ "$SECONDS" -lt "$budget" ]; then
                    why_not=$(LORICA_CUDA_SYNC=1 timeout --kill-after=5 60 "$program" --gtest_filter="$test" 2>&1 |
                        tee "$folder/${test//[^A-Za-z0-9_.]/_}.sync.log" | grep -m 1 -hoE 'CUDA: .*|relative error.*|element [0-9]+ of .*' | cut -c1-120)
                fi
                bad+="${bad:+, }$test${why_not:+ ($why_not)}"
                ;;
        esac
    done <"$log.out"
    local done_
    done_=$(grep -c . "$log.out")
    if [ -n "$bad$hanging" ]; then
        failed=1
        row "$name" FAIL "of $done_ tests fail: ${bad:-none}; hang: ${hanging:-none} (logs in $folder)" "$took"
    elif [ "$done_" -lt "$total" ]; then
        failed=1
        row "$name" "TIME OUT" "$done_ of $total tests pass; the time was up" "$took"
    elif [ "$(grep -lF '[  SKIPPED ]' "$folder"/*.log 2>/dev/null | wc -l)" = "$total" ]; then
        row "$name" skipped "all $total tests" "$took"
    else
        row "$name" pass "$total tests, each in its own process" "$took"
    fi
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
    local instructions=
    [ "${LORICA_CUDA_WGMMA:-0}" = 0 ] || instructions=wgmma
    [ "${LORICA_CUDA_TMA:-0}" = 0 ] || instructions='wgmma with TMA'
    if [ -n "$instructions" ] && ! grep -q ", $instructions" "$log.out"; then
        row "$1" "left out" "this GPU or build has no $instructions" "$took"
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
    if [ "${LORICA_CUDA_OVERLAP:-0}" != 0 ] && ! grep -q ', overlapping' "$log.out"; then
        row "$1" "left out" "kernels of this GPU do not overlap" "$took"
        return
    fi
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
[ -z "$budget" ] || repetitions=3

# ---- building

if [ -n "$build" ] && [ -e "$build/glibc" ]; then
    needed=$(cat "$build/glibc") found=$(getconf GNU_LIBC_VERSION | sed 's/.* //')
    at_least "$needed" "$found" || die "the C library here is $found, and the programs in $build need $needed: build them here instead"
    export LORICA_REPOSITORY=$repository LORICA_CUDA_LIBRARY=$build/liblorica-cuda.so LD_LIBRARY_PATH=$build:${LD_LIBRARY_PATH-}
fi
if [ -z "$build" ]; then
    build=$out/build
    capability=$(printf '%s' "$gpu" | cut -d, -f2 | tr -dc 0-9)
    [ "$capability" != 90 ] || capability=90a
    generator=()
    [ "$(tool ninja)" = no ] || generator=(-G Ninja)
    check configure 120 cmake -S "$repository/native" -B "$build" "${generator[@]}" -DLORICA_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="${capability:-90a}" \
        ${prefix:+-DCMAKE_PREFIX_PATH="$prefix"} -DCMAKE_BUILD_TYPE=Release -DFETCHCONTENT_FULLY_DISCONNECTED=ON || exit 1
    check build 600 cmake --build "$build" -j "$(nproc)" --target lorica_cuda backend_parity_test backend_parity_rows_test cuda_session_test cuda_attention_test lorica-bench || exit 1
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

# With few multiprocessors and small panels to choose by, the tests' matrices are multiplied by the kernels, and in the parts, that
# an 8B model's are.
parity=$build/backend_parity_test session=$build/cuda_session_test
products='*BackendParity.Linear*:*BackendParity.Head*:*BackendParity.*TheLayer*'
as_large=(env LORICA_CUDA_MULTIPROCESSORS=4 LORICA_CUDA_PANEL=32768)
with() { # VARIABLE=VALUE… -- COMMAND…: a function with an environment
    local names=()
    while [ "$1" != -- ]; do
        export "${1?}"
        names+=("${1%%=*}")
        shift
    done
    shift
    "$@"
    unset "${names[@]}"
}
tests "operations against the reference" 150 "$parity" '*BackendParity*'
tests "operations on rows against the reference" 60 "$build/backend_parity_rows_test" '*BackendParity*'
with LORICA_TEST_ALIGNED=1 -- tests "operations on aligned rows" 90 "$parity" '*BackendParity*bf16'
tests "attention of an 8B model" 60 "$build/cuda_attention_test" '*'
with LORICA_CUDA_MULTIPROCESSORS=4 LORICA_CUDA_PANEL=32768 -- \
    tests "the same with large tiles and several panels" 60 "$parity" "$products"
with LORICA_CUDA_MULTIPROCESSORS=4 LORICA_CUDA_WGMMA=1 -- tests "wgmma: products against the reference" 60 "$parity" "$products"
with LORICA_CUDA_TMA=1 -- tests "TMA: products against the reference" 60 "$parity" "$products"
tests "whole model: gradients, recorded steps, generation" 120 "$session" '-*ManySteps*'
# Kernels of a token that begin while the one before ends: on by hand until this and the rates below have passed on a GPU.
with LORICA_CUDA_OVERLAP=1 -- tests "overlapping kernels: generation" 60 "$session" '*Generates*:*TokensAreTheSame*:*Decodes*'
with LORICA_CUDA_WGMMA=1 -- tests "wgmma: whole model" 60 "$session" '*Gradients*:*Recorded*'

# ---- timings

await_models() {
    [ -n "$writer" ] || return 0
    while kill -0 "$writer" 2>/dev/null && { [ -z "$budget" ] || [ "$SECONDS" -lt "$budget" ]; }; do sleep 1; done
}
same_loss() { # name, two losses, how far apart they may be, as a part of one; nothing where either is not there
    [ -n "$2" ] && [ -n "$3" ] || return 0
    local verdict
    verdict=$(LC_ALL=C awk -v a="$2" -v b="$3" -v part="$4" 'BEGIN { print (a - b) ^ 2 <= (part * a) ^ 2 ? "pass" : "FAIL" }')
    [ "$verdict" = pass ] || failed=1
    row "$1" "$verdict" "$2, $3"
}
first_timings() { # shape: what tells most
    common=(--shape "$1" --type q4_k --sequence-length 2048)
    with LORICA_CUDA_WGMMA=0 -- training "$1 Q4_K, 2048 tokens, mma" "${common[@]}" --tokens 2048
    mma_loss=$last_loss
    with LORICA_CUDA_WGMMA=1 -- training "$1 Q4_K, 2048 tokens, wgmma" "${common[@]}" --tokens 2048
    wgmma_loss=$last_loss
    same_loss "$1, loss with and without wgmma" "$wgmma_loss" "$mma_loss" 0.01
    # Copies of tiles by the tensor memory accelerator: on by hand until these rows and the tests above have passed on a GPU. The
    # products' sums are made in the same order with them and without.
    with LORICA_CUDA_TMA=1 -- training "$1 Q4_K, 2048 tokens, wgmma with TMA" "${common[@]}" --tokens 2048
    same_loss "$1, loss with and without TMA" "$last_loss" "$wgmma_loss" 0.0001
    decoding "$1 Q4_K, decoding" --shape "$1" --type q4_k
    with LORICA_CUDA_OVERLAP=1 -- decoding "$1 Q4_K, decoding, overlapping kernels" --shape "$1" --type q4_k
    kernels "$1 Q4_K, 2048 tokens, kernels" steps --no-ceiling "${common[@]}" --tokens 2048
    kernels "$1 Q4_K, decoding, kernels" decode --shape "$1" --type q4_k --prompt 1
}
more_timings() { # shape
    common=(--shape "$1" --type q4_k --sequence-length 2048)
    training "$1 Q4_K, 8192 tokens" "${common[@]}" --tokens 8192
    with LORICA_CUDA_GRAPHS=0 -- training "$1 Q4_K, 2048 tokens, no graphs" "${common[@]}" --tokens 2048
    with LORICA_CUDA_EXPAND=0 -- training "$1 Q4_K, 2048 tokens, no copies of weights" "${common[@]}" --tokens 2048
    with LORICA_CUDA_GRAPHS=0 -- decoding "$1 Q4_K, decoding, no graphs" --shape "$1" --type q4_k
    kernels "$1 Q4_K, 8192 tokens, kernels" steps --no-ceiling "${common[@]}" --tokens 8192
}
await_models
first_timings "${shapes%%,*}"

# ---- what the tests on a CPU cannot see: races between warps, barriers, addresses; and counters

sanitizer=(compute-sanitizer --error-exitcode 9)
few='*BackendParity.AttentionOverACache*bf16:*BackendParity.LinearOfManyRows*bf16'
if [ "$(tool compute-sanitizer)" = yes ] || [ -n "$dry" ]; then
    check "racecheck of a few operations" 60 "${as_large[@]}" "${sanitizer[@]}" --tool racecheck "$parity" --gtest_filter="$few"
    check "synccheck of a few operations" 60 "${as_large[@]}" "${sanitizer[@]}" --tool synccheck "$parity" --gtest_filter="$few"
    check "memcheck of a few operations" 60 "${as_large[@]}" "${sanitizer[@]}" --tool memcheck "$parity" --gtest_filter="$few"
    for tool in racecheck synccheck memcheck; do
        check "$tool of products with TMA" 60 env LORICA_CUDA_TMA=1 "${sanitizer[@]}" --tool "$tool" "$parity" \
            --gtest_filter='*BackendParity.LinearOfManyRows*bf16'
    done
else
    row "compute-sanitizer" "left out" "it is not on the PATH"
fi
if [ "$(tool ncu)" = yes ] || [ -n "$dry" ]; then
    stage "counters of products and attention" 90 ncu --clock-control none --section SpeedOfLight --section LaunchStats \
        -k 'regex:gemm|attention' -c 12 "$build/lorica-bench" steps --shape "${shapes%%,*}" --type q4_k --sequence-length 2048 --tokens 2048 \
        --device "$device" --no-ceiling --repetitions 1 --cache "$models"
    case $status in
        dry | late) ;;
        0) row "counters of products and attention" "done" "$(grep -hE 'Compute \(SM\) Throughput|Memory Throughput' "$log.out" | tr -s ' ' | head -n 8 | tr '\n' ';' | cut -c1-240)" "$took" ;;
        *) row "counters of products and attention" "left out" "counters cannot be read here: $(grep -m 1 -h 'ERR' "$log" "$log.out" | cut -c1-120)" "$took" ;;
    esac
else
    row "counters" "left out" "there is no ncu on the PATH"
fi

# ---- the rest

check "loss of 200 steps against cpu" 180 env LORICA_TEST_CUDA_STEPS=200 "$session" --gtest_filter='*ManySteps*'
rest=,$shapes
for shape in ${rest//,/ }; do
    [ "$shape" = "${shapes%%,*}" ] || first_timings "$shape"
    more_timings "$shape"
done
if [ "$(tool compute-sanitizer)" = yes ] || [ -n "$dry" ]; then
    # An allocation that must fail is no error of ours, hence the filters.
    small='*BackendParity.LinearOverShapes*:*BackendParity.LinearOfManyRows*:*BackendParity.Attention*:*BackendParity.HeadOverShapes*:*BackendParity.*BehindANorm*:*BackendParity.Swiglu*:*Dora*:*8bit*'
    check "memcheck of operations" 600 "${sanitizer[@]}" --tool memcheck "$parity" --gtest_filter="$small"
    check "memcheck of a session" 600 "${sanitizer[@]}" --tool memcheck "$session" --gtest_filter='*Dropout*'
    if [ -z "$budget" ]; then
        check "racecheck of operations" 900 "${sanitizer[@]}" --tool racecheck "$parity" --gtest_filter='*Attention*:*Linear*:*8bit*:*Dora*'
        check "initcheck of a session" 600 "${sanitizer[@]}" --tool initcheck "$session" --gtest_filter='*Dropout*'
    fi
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

[ -n "$dry" ] || printf '\nThe table is in %s, as JSON in %s; both, logs and the JSON of the timings are in %s.\n' "$table" "$results" "$out/results.tar.gz"
exit "$failed"
