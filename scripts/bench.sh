#!/usr/bin/env bash
# Measures the native engine on this machine, without a JVM: training steps next to oneDNN's bf16 matmul, kernels,
# memory against the plan, decoding against the memory's bandwidth, start, scaling. Prints the tables of the README's
# performance section; the JSON behind them goes to build/bench.
#
#   scripts/bench.sh            the standard set, under ten minutes
#   scripts/bench.sh --quick    a tiny model, under a minute: that everything runs, not how fast
#   scripts/bench.sh --full     the standard set and a 7B shape (3.9 GB of disk)
#   scripts/bench.sh --build    only builds lorica-bench, for scripts/bench-peers.sh
#
# Nothing else should run on the machine. oneDNN comes from the Maven artifact org.bytedeco:dnnl, or from
# ONEDNN_ROOT, a folder into which that was unpacked; without it the columns of the ceiling stay empty.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

set=standard
case ${1-} in
    '') ;;
    --quick | --full | --build) set=${1#--} ;;
    *) die "there is no option $1; there are --quick, --full and --build" ;;
esac
[ $# -le 1 ] || die "takes one option at most"
use_toolchain "$@"

bench=$native_build/lorica-bench
results=$build/bench
onednn=${ONEDNN_ROOT:-$build/onednn}

# shellcheck disable=SC2317 # called by step, as the next one is
unpack_onednn() {
    local version=3.11-1.5.13 platform=linux-x86_64
    [ "$(uname -m)" = x86_64 ] || platform=linux-arm64
    rm -rf "$onednn.jar" "$onednn.partial" &&
        run_maven -N dependency:copy "-Dartifact=org.bytedeco:dnnl:$version:jar:$platform" "-DoutputDirectory=$onednn.jar" &&
        mkdir -p "$onednn.partial" &&
        (cd "$onednn.partial" && jar xf "$onednn.jar/dnnl-$version-$platform.jar") &&
        mv "$onednn.partial" "$onednn" &&
        rm -r "$onednn.jar"
}

# shellcheck disable=SC2317
build_bench() {
    configure_native
    cmake "-DONEDNN_ROOT=$1" "$native_build"
    cmake --build "$native_build" -j"$jobs" --target lorica-bench
}

mkdir -p "$results"
exec 8>"$build/lock"
flock 8
if [ ! -d "$onednn" ]; then
    step onednn "Fetching oneDNN to compare with" unpack_onednn || echo "It goes on without the ceiling."
fi
[ -d "$onednn" ] || onednn=
step bench-build "Building lorica-bench" build_bench "$onednn"
if in_devroot; then echo devroot; else echo host; fi >"$build/bench.toolchain"
exec 8>&-
[ "$set" != build ] || exit 0

failed=0
measure() { # measure NAME COMMAND OPTION…: into build/bench/NAME.json; NAME.log has the table
    local name=$1
    shift
    rm -f "$results/$name.json"
    printf '\n-- %s\n' "lorica-bench $*"
    if "$bench" "$@" >"$results/$name.json.partial" 2> >(tee "$results/$name.log" >&2); then
        mv "$results/$name.json.partial" "$results/$name.json"
    else
        failed=1
    fi
}

limited() { # limited ISA ONEDNN_ISA NAME COMMAND…: as a processor without the newer instructions would run it
    export LORICA_ISA=$1 ONEDNN_MAX_CPU_ISA=$2
    shift 2
    measure "$@"
    unset LORICA_ISA ONEDNN_MAX_CPU_ISA
}

started=$SECONDS
rm -f "$results"/*.json
if [ "$set" = quick ]; then
    few=(--shape mini --repetitions 2)
    measure steps-mini steps "${few[@]}" --tokens 256 --sequence-length 128
    measure steps-mini-qv steps "${few[@]}" --tokens 256 --sequence-length 128 --targets q_proj,v_proj
    measure steps-mini-recompute steps "${few[@]}" --tokens 256 --sequence-length 128 --recomputation on
    measure gemm-mini gemm "${few[@]}" --tokens 256 --types q4_0
    measure ceiling-mini ceiling "${few[@]}" --tokens 256
    measure decode-mini decode "${few[@]}" --prompt 64 --generate 16
    measure start-mini start "${few[@]}" --examples 500
    measure scaling-mini scaling "${few[@]}" --tokens 512 --lengths 128,512 --examples 100,1000
    if [ "$(uname -m)" = x86_64 ]; then
        limited avx2 AVX2 steps-mini-avx2 steps "${few[@]}" --tokens 256 --sequence-length 128
    fi
else
    measure steps-s135 steps --shape s135
    measure steps-s135-qv steps --shape s135 --targets q_proj,v_proj --repetitions 3
    measure steps-s135-recompute steps --shape s135 --recomputation on --repetitions 3
    measure steps-tiny1b steps --shape tiny1b --repetitions 3
    measure steps-tiny1b-512 steps --shape tiny1b --tokens 512 --recomputation off --no-ceiling --repetitions 2
    measure steps-tiny1b-512-recompute steps --shape tiny1b --tokens 512 --recomputation on --no-ceiling --repetitions 2
    if [ "$(uname -m)" = x86_64 ]; then
        limited avx512bf16 AVX512_CORE_BF16 steps-s135-avx512bf16 steps --shape s135 --tokens 1024 --repetitions 2
        limited avx512 AVX512_CORE steps-s135-avx512 steps --shape s135 --tokens 512 --repetitions 2
        limited avx2 AVX2 steps-s135-avx2 steps --shape s135 --tokens 512 --repetitions 2
    fi
    measure ceiling-s135 ceiling --shape s135 --repetitions 3
    measure gemm-s135 gemm --shape s135 --types q4_0,q8_0,bf16 --repetitions 3
    measure decode-s135 decode --shape s135 --repetitions 3
    measure decode-tiny1b decode --shape tiny1b --generate 64 --repetitions 3
    measure start-s135 start --shape s135 --repetitions 3
    measure scaling-s135 scaling --shape s135 --repetitions 2
    if [ "$set" = full ]; then
        measure steps-llama7b-512 steps --shape llama7b --tokens 512 --recomputation on --no-ceiling --repetitions 1
    fi
fi

echo
python3 "$checkout/scripts/bench_tables.py" "$results"
printf '\n%d s; JSON in %s\n' $((SECONDS - started)) "$results"
exit $failed
