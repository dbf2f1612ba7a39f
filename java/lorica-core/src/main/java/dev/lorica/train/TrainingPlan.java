package dev.lorica.train;

/**
 * What a training run is going to do, known before its first step.
 *
 * @param config               how to train
 * @param examples             examples of one epoch
 * @param microBatchesPerEpoch packed micro-batches of one epoch
 * @param stepsPerEpoch        optimizer steps of one epoch; the last one may have fewer micro-batches than the others
 * @param totalSteps           optimizer steps of the run
 * @param warmupSteps          those during which the learning rate rises
 * @param largestBatch         tokens of the largest micro-batch of the run
 * @param mostSequences       examples of the micro-batch that has most
 * @param longestExample       tokens of the longest example
 * @param trainableParameters  elements of the adapter
 * @param memory               what that needs
 */
public record TrainingPlan(
        TrainingConfig config,
        int examples,
        int microBatchesPerEpoch,
        int stepsPerEpoch,
        int totalSteps,
        int warmupSteps,
        int largestBatch,
        int mostSequences,
        int longestExample,
        long trainableParameters,
        MemoryPlan memory) {}
