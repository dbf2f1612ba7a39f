package dev.lorica.spark;

import dev.lorica.data.BatchShape;
import dev.lorica.train.Objective;
import dev.lorica.train.TrainingConfig;
import java.io.Serializable;

/**
 * What an executor needs to know of a training, once.
 *
 * @param run     tells trainings apart
 * @param adapter the file of the adapter, whose shapes and settings count, not its values
 * @param shape   of the largest micro-batch
 */
record TrainingSetup(
        String run,
        SparkModel model,
        byte[] adapter,
        TrainingConfig config,
        Objective objective,
        BatchShape shape,
        GradientFormat format,
        boolean compressed)
        implements Serializable {}
