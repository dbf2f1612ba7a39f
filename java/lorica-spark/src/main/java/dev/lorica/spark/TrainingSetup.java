package dev.lorica.spark;

import dev.lorica.data.BatchShape;
import dev.lorica.train.Objective;
import dev.lorica.train.TrainingConfig;
import java.io.Serializable;

/**
 * What an executor needs to know of a training, once.
 *
 * @param run        tells trainings apart
 * @param model      as executors find it
 * @param adapter    the file of the adapter, whose shapes and settings count, not its values
 * @param config     of the training
 * @param objective  what is minimized
 * @param shape      of the largest micro-batch
 * @param format     of the numbers that gradients are sent in
 * @param compressed whether they are compressed
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
