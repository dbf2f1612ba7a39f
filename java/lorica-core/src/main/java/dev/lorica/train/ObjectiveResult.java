package dev.lorica.train;

import dev.lorica.data.Batch;
import dev.lorica.internal.Arguments;
import java.util.LinkedHashMap;
import java.util.Map;

/** What an objective makes of a micro-batch: its loss, the derivatives of that by each log-probability, and what is to be logged. */
public final class ObjectiveResult {
    private final float[] weights;
    private final boolean ofCandidates;
    private double lossSum;
    private double units;
    private Metrics metrics = Metrics.NONE;

    /** @param tokens of the batch */
    ObjectiveResult(int tokens) {
        weights = new float[tokens];
        ofCandidates = false;
    }

    /** Of a teacher's candidates. */
    ObjectiveResult(Batch.Candidates candidates) {
        weights = new float[candidates.ids().length];
        ofCandidates = true;
    }

    /**
     * Adds the loss of one unit, as a rule an example: the loss of a step is the mean over all units in it.
     *
     * @param value finite
     */
    public void loss(double value) {
        loss(value, 1);
    }

    /**
     * Adds the losses of several units, or of one that counts more or less than others.
     *
     * @param sum   of the losses
     * @param units by how many the loss of a step is divided for them
     */
    public void loss(double sum, double units) {
        this.lossSum += sum;
        this.units += units;
    }

    /**
     * Adds {@code derivative} to that of the sum of losses by the log-probability of each token of the sequence.
     *
     * @param sequence   one of the batch
     * @param derivative ∂ loss / ∂ log p
     */
    public void gradient(ScoredSequence sequence, double derivative) {
        Arguments.given(sequence, "sequence");
        for (int i = 0; i < sequence.length(); i++) {
            gradient(sequence, i, derivative);
        }
    }

    /**
     * The same of token {@code i} alone.
     *
     * @param sequence   one of the batch
     * @param i          of its tokens that are learned, from 0
     * @param derivative ∂ loss / ∂ log p
     */
    public void gradient(ScoredSequence sequence, int i, double derivative) {
        Arguments.given(sequence, "sequence");
        Arguments.check(!ofCandidates, "the gradient", "of a token", "of a candidate where there is a teacher");
        // The engine weights −log p.
        weights[sequence.place(i)] -= (float) derivative;
    }

    /**
     * With a teacher: adds to the derivative of the sum of losses by log p of a candidate.
     *
     * @param sequence   one of the batch
     * @param i          of its tokens that are learned, from 0
     * @param k          of the candidates at its place, from 0
     * @param derivative ∂ loss / ∂ log p
     */
    public void gradient(ScoredSequence sequence, int i, int k, double derivative) {
        Arguments.given(sequence, "sequence");
        Arguments.check(ofCandidates, "the gradient", "of a candidate", "of a token where there is no teacher");
        weights[sequence.candidate(i, k)] -= (float) derivative;
    }

    /**
     * The same of each token of the prompt, where that is scored.
     *
     * @param sequence   one of the batch
     * @param derivative ∂ loss / ∂ log p
     */
    public void promptGradient(ScoredSequence sequence, double derivative) {
        Arguments.given(sequence, "sequence");
        for (int i = 0; i < sequence.promptLength(); i++) {
            weights[sequence.promptPlace(i)] -= (float) derivative;
        }
    }

    /**
     * A number to be logged: its mean over all calls with this name.
     *
     * @param name  as it is logged, {@code rewards/chosen}
     * @param value of this micro-batch
     */
    public void metric(String name, double value) {
        Arguments.given(name, "name");
        metrics = metrics.plus(name, value, 1);
    }

    double lossSum() {
        return lossSum;
    }

    double units() {
        return units;
    }

    /** By which the losses −log p of the positions, or of their candidates, are weighted. */
    float[] weights() {
        return weights;
    }

    Metrics metrics() {
        return metrics;
    }

    /** What a pair says of a model: its rewards, and the log-probabilities that these come from. */
    void pairMetrics(double chosenReward, double rejectedReward, double chosenLogProb, double rejectedLogProb) {
        Map<String, Double> values = new LinkedHashMap<>();
        values.put("rewards/chosen", chosenReward);
        values.put("rewards/rejected", rejectedReward);
        values.put("rewards/accuracies", chosenReward > rejectedReward ? 1.0 : 0.0);
        values.put("rewards/margins", chosenReward - rejectedReward);
        values.put("logps/chosen", chosenLogProb);
        values.put("logps/rejected", rejectedLogProb);
        values.forEach(this::metric);
    }
}
