package dev.lorica.train;

import dev.lorica.data.Batch;
import dev.lorica.data.Labels;
import dev.lorica.exceptions.InvalidArgumentException;

/** An objective about the outputs of a classifier, where others are about the log-probabilities of tokens. */
interface OutputObjective extends Objective {
    /** What the classifier says. */
    Labels labels();

    /**
     * Of a micro-batch.
     *
     * @param lossSum   over the units
     * @param units     by whose number the sum is divided
     * @param gradients [sequences, outputs] of the sum of losses by each output
     * @param metrics   to be logged
     */
    record Scores(double lossSum, double units, float[] gradients, Metrics metrics) {}

    /** @param outputs [sequences, outputs] */
    Scores of(float[] outputs, Batch batch);

    @Override
    default void score(ScoredBatch batch, ObjectiveResult result) {
        throw new InvalidArgumentException(
                "the objective " + name() + " is about outputs, and not about log-probabilities of tokens");
    }
}
