package dev.lorica.train;

import java.util.Map;

/**
 * How far training is and how it goes.
 *
 * @param step             optimizer steps done, counted from 1
 * @param totalSteps       optimizer steps of the run
 * @param epoch            passes over the data, with a fraction
 * @param loss             mean over the tokens trained on: of this step in {@link TrainerListener#onStep}, of all steps since the
 *                         last log in {@link TrainerListener#onLog}
 * @param learningRate     the rate that this step was done with
 * @param gradNorm         total norm of this step's gradient before clipping
 * @param tokens           tokens processed since the start
 * @param trainedTokens    tokens trained on since the start
 * @param tokensPerSecond  tokens processed per second, over the same steps as the loss
 * @param utilization      share of the device's measured peak, as model FLOPs utilization is counted: 4 operations per token and
 *                         weight; 0: the peak is not known; 1 too where it was measured while the device had other work
 * @param seconds          time since the start, evaluations included
 * @param secondsRemaining what is left at the mean speed so far
 * @param metrics          what the objective logs, over the same steps as the loss, by TRL's names: {@code rewards/margins}
 */
public record TrainingProgress(
        int step,
        int totalSteps,
        double epoch,
        double loss,
        double learningRate,
        double gradNorm,
        long tokens,
        long trainedTokens,
        double tokensPerSecond,
        double utilization,
        double seconds,
        double secondsRemaining,
        Map<String, Double> metrics) {}
