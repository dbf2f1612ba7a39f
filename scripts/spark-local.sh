#!/usr/bin/env bash
# Trains on a Spark cluster of N executor processes of this machine, each with one core:
#
#   scripts/spark-local.sh N OPTIONS…      the options are those of `lorica train`
#
# Spark comes from $SPARK_HOME where that is set, else from Maven's repository; it is downloaded and the module is built when they are
# missing. LORICA_SPARK_CONF has further settings of Spark, such as "--conf spark.lorica.gradients=bf16", LORICA_SPARK_MEMORY the heap
# of an executor in megabytes (1024), LORICA_SPARK_CORES its cores (1), LORICA_SPARK_CLASS another main class, such as
# dev.lorica.spark.SparkSweep, whose options are then those of `lorica sweep`.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if ! [[ ${1-} =~ ^[1-9][0-9]*$ ]] || [ $# -lt 2 ]; then die "usage: scripts/spark-local.sh N OPTIONS…, with the options of 'lorica train'"; fi

# Tests say what is to run, and it is built already.
if [ -z "${LORICA_SPARK_CLASS_PATH:-}" ]; then
    use_toolchain "$@"
    build_spark
fi

executors=$1
shift
memory=${LORICA_SPARK_MEMORY:-1024}
cores=${LORICA_SPARK_CORES:-1}
java=java
[ ! -x "${JAVA_HOME:-}/bin/java" ] || java=$JAVA_HOME/bin/java
classes=${LORICA_SPARK_CLASS_PATH:-"$spark_module/lorica-spark.jar:$spark_module/lib/*"}
# Without a Spark of its own: an empty folder of jars, and the class path says it all.
if [ -z "${SPARK_HOME:-}" ]; then
    export SPARK_HOME=$build/spark-home
    mkdir -p "$SPARK_HOME/jars"
    classes=$classes:$(cat "$spark_module/spark.classpath")
fi
export SPARK_SCALA_VERSION=2.13
# All of it is on this machine, which need not know its own name.
export SPARK_LOCAL_IP=${SPARK_LOCAL_IP:-127.0.0.1} SPARK_LOCAL_HOSTNAME=${SPARK_LOCAL_HOSTNAME:-localhost}

# What spark-submit gives to Java.
opens=()
for package in lang lang.invoke lang.reflect io net nio util util.concurrent util.concurrent.atomic; do
    opens+=("--add-opens=java.base/java.$package=ALL-UNNAMED")
done
for package in jdk.internal.ref sun.nio.ch sun.nio.cs sun.security.action sun.util.calendar; do
    opens+=("--add-opens=java.base/$package=ALL-UNNAMED")
done

# shellcheck disable=SC2086 # several options
exec "$java" "${opens[@]}" -XX:+UseSerialGC -Dlorica.command=scripts/lorica \
    "-Dlorica.command.train=scripts/spark-local.sh $executors" -cp "$classes:$SPARK_HOME/jars/*" org.apache.spark.deploy.SparkSubmit \
    --master "local-cluster[$executors,$cores,$memory]" --class "${LORICA_SPARK_CLASS:-dev.lorica.spark.SparkTrain}" \
    --conf "spark.executor.memory=${memory}m" --conf "spark.executor.extraClassPath=$classes" --conf "spark.task.cpus=$cores" \
    --conf spark.ui.enabled=false ${LORICA_SPARK_CONF:-} \
    spark-internal "$@"
