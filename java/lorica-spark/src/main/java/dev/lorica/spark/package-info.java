/**
 * Lorica on Apache Spark.
 *
 * <p>Reading order: {@link dev.lorica.spark.SparkTrain} (for {@code spark-submit}), {@link dev.lorica.spark.SparkWorkers} (the driver's
 * side of a training: one job per step), {@link dev.lorica.spark.SparkModel} (a model as executors find it).
 */
package dev.lorica.spark;
