package dev.lorica.train;

import dev.lorica.adapter.AdapterMetadata;
import dev.lorica.eval.Evaluation;
import dev.lorica.internal.json.Json;

/**
 * What became of a training run.
 *
 * @param steps         optimizer steps done
 * @param epochs        passes over the data done, with a fraction
 * @param loss          mean over all tokens trained on, from first step to last
 * @param tokens        tokens processed
 * @param trainedTokens tokens trained on
 * @param seconds       time taken, evaluations included
 * @param stopped       whether {@link Trainer#requestStop} ended it before its time
 * @param stoppedEarly  whether {@link TrainingConfig#earlyStoppingPatience} did
 * @param bestStep      the step with the lowest evaluation loss, 0 when nothing was evaluated. With
 *                      {@link TrainingConfig#loadBestModelAtEnd} the adapter is as it was then, unless {@code stopped}.
 * @param evaluation    that of the adapter as it was left, or the last one before; {@code null} when there was none
 */
public record TrainingResult(
        int steps,
        double epochs,
        double loss,
        long tokens,
        long trainedTokens,
        double seconds,
        boolean stopped,
        boolean stoppedEarly,
        int bestStep,
        Evaluation evaluation) {

    /**
     * {@return the result with which the training of an adapter ended; {@code null} when that is not known, or not understood by this
     * version}
     *
     * @param metadata of the adapter
     */
    public static TrainingResult of(AdapterMetadata metadata) {
        return Json.ofMap(metadata.result(), TrainingResult.class, null);
    }

    /** {@return tokens of all passes over the seconds of training} */
    public double tokensPerSecond() {
        return seconds > 0 ? tokens / seconds : 0;
    }
}
