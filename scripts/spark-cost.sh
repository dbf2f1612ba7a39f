#!/usr/bin/env bash
# What a training step costs on Spark beside its gradients, measured with 1 and 2 executors of this machine for 1.8, 13 and 50 MB of
# gradients, and reckoned from that for 2 to 64 machines: scripts/spark-cost.sh SECONDS-OF-A-STEP-ON-CPU ON-GPU
#
# The seconds are those in which one executor computes its own gradients of a step. They are the caller's to measure.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# = 2 ] || die "usage: scripts/spark-cost.sh SECONDS-OF-A-STEP-ON-CPU ON-GPU"
use_toolchain "$@"

measured=$build/spark-cost.jsonl
mkdir -p "$build"
: >"$measured.tmp"
for executors in 1 2; do
    LORICA_SPARK_CLASS=dev.lorica.spark.SparkCost LORICA_SPARK_MEMORY=1024 \
        LORICA_SPARK_CONF="--driver-memory 2g --conf spark.lorica.cost.executors=$executors" \
        "$checkout/scripts/spark-local.sh" "$executors" 1.8 13 50 | grep --line-buffered '^{' >>"$measured.tmp"
done
mv "$measured.tmp" "$measured"
exec python3 "$checkout/scripts/spark_cost.py" "$measured" "$@"
