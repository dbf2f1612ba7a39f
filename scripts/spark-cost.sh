#!/usr/bin/env bash
# What a training step costs on Spark beside its gradients, with 1 and 2 executors of this machine, each with one core; and what speed-up
# that leaves on 2 to 64 machines, as reckoned from it.
#
#   scripts/spark-cost.sh            some minutes; the machine should do nothing else
#   scripts/spark-cost.sh --quick    steps of 2 micro-batches in the place of 16: that everything runs
#   scripts/spark-cost.sh --show     what the last run measured, once more
#
# Whole steps are of a model of 1.1B with random weights (rank 16, all linear layers, 16 micro-batches of 512 tokens for each executor), which
# lorica-bench writes into ~/.cache/lorica/bench, 0.6 GB. LORICA_COST_GPU_SECONDS is how long a GPU is taken to need for an executor's
# gradients of such a step.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

micro_batches=16 steps=2
case ${1-} in
    '') ;;
    --quick) micro_batches=2 steps=1 ;;
    --show) exec python3 "$checkout/scripts/spark_cost.py" "$build/spark-cost.jsonl" ;;
    *) die "there is no option $1; there are --quick and --show" ;;
esac
[ $# -le 1 ] || die "takes one option at most"
use_toolchain "$@"

started=$SECONDS
measured=$build/spark-cost.jsonl
shape=tiny1b
mkdir -p "$build"
: >"$measured.tmp"

# shellcheck disable=SC2317 # called by step
build_bench() { configure_native && cmake --build "$native_build" -j"$jobs" --target lorica-bench; }
# shellcheck disable=SC2317
write_model() { "$native_build/lorica-bench" steps --shape $shape --tokens 16 --repetitions 1 --no-ceiling; }

[ -x "$native_build/lorica-bench" ] || step bench-build "Building lorica-bench" build_bench >&2
step cost-model "Writing the model of random weights" write_model >&2
models=("${XDG_CACHE_HOME:-$HOME/.cache}/lorica/bench/$shape"-Q4_0-r*.gguf)
(build_spark)

measure() { # measure TITLE EXECUTORS ARGUMENT…
    local title=$1 executors=$2 began=$SECONDS
    shift 2
    printf '%-44s' "$title" >&2
    LORICA_SPARK_CLASS=dev.lorica.spark.SparkCost LORICA_SPARK_MEMORY=2048 \
        LORICA_SPARK_CONF="--driver-memory 2g --conf spark.lorica.cost.executors=$executors ${LORICA_SPARK_CONF:-}" \
        "$checkout/scripts/spark-local.sh" "$executors" "$@" 2>"$build/logs/spark-cost.log" | grep '^{' >>"$measured.tmp" || {
        tail -n 40 "$build/logs/spark-cost.log" >&2
        die "that failed; the whole log is $build/logs/spark-cost.log"
    }
    printf '%4d s\n' $((SECONDS - began)) >&2
}

for executors in 1 2; do
    measure "The way of 1.8, 13 and 50 MB, $executors executor(s)" $executors way 1.8 13 50
done
for executors in 1 2; do
    measure "Steps of 1.1B, $executors executor(s)" $executors step "${models[-1]}" $micro_batches 512 $steps
done
mv "$measured.tmp" "$measured"
printf '%-44s%4d s\n\n' "All of it" $((SECONDS - started)) >&2
exec python3 "$checkout/scripts/spark_cost.py" "$measured"
