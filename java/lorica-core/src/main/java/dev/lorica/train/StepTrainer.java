package dev.lorica.train;

import dev.lorica.adapter.Adapter;
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.data.DataConfig;
import dev.lorica.data.Dataset;
import dev.lorica.data.Packer;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.util.Map;

/**
 * Training whose loop is somebody else's: gradients of one micro-batch after another add up, until a step is taken with them.
 *
 * <pre>{@code
 * try (StepTrainer trainer = new StepTrainer(adapter, config, Objective.sft(), new BatchShape(1024, 8, 256))) {
 *     for (Batch batch : Packer.shuffled(data, 8, 42, 0)) {
 *         trainer.forwardBackward(batch);
 *         trainer.optimStep(1e-4, 0, 1);
 *     }
 * }
 * }</pre>
 *
 * With the batches and learning rates of {@link Trainer} the adapter becomes the same, bit by bit. Not for use by several threads at
 * once.
 */
public final class StepTrainer implements AutoCloseable {
    private final Adapter adapter;
    private final Objective objective;
    private final BatchShape shape;
    private final LocalSession session;
    private double lossSum;
    private double units;
    private int steps;

    /**
     * What a micro-batch came to.
     *
     * @param lossSum  the sum of losses
     * @param units    what a step divides it and the gradients by: trained tokens in plain fine-tuning, else as a rule examples
     * @param trained  positions that are trained on
     * @param tokens   processed
     * @param metrics  what the objective says of it, as means
     */
    public record Sums(double lossSum, double units, long trained, long tokens, Map<String, Double> metrics) {}

    /**
     * A step that was taken.
     *
     * @param number   of all since the beginning
     * @param loss     of the micro-batches before it, per unit
     * @param gradNorm of their gradients, before they were clipped
     */
    public record Step(int number, double loss, double gradNorm) {}

    /**
     * Takes memory for micro-batches up to a shape.
     *
     * @param adapter   what is trained, which stays the caller's
     * @param config    optimizer, seed, recomputation; what is about the loop is not looked at
     * @param objective of {@link #forwardBackward(Batch)}; one that draws answers itself needs a {@link Trainer}
     * @param shape     the largest micro-batch that there will be
     * @throws dev.lorica.exceptions.MemoryException if there is too little
     */
    public StepTrainer(Adapter adapter, TrainingConfig config, Objective objective, BatchShape shape) {
        Arguments.given(adapter, "adapter");
        Arguments.given(config, "config");
        Arguments.given(objective, "objective");
        Arguments.given(shape, "shape");
        if (objective instanceof Grpo || objective instanceof OutputObjective) {
            throw new InvalidArgumentException(
                    "the objective " + objective.name() + " needs a loop of its own, which Trainer has");
        }
        this.adapter = adapter;
        this.objective = objective;
        this.shape = shape;
        session = new LocalSession(adapter, config, objective, shape);
    }

    /**
     * Adds the gradients of what the objective makes of a micro-batch.
     *
     * @param batch the micro-batch
     * @return its losses, and how many positions count
     */
    public Sums forwardBackward(Batch batch) {
        Arguments.given(batch, "batch");
        return add(session.gradients(batch, -1));
    }

    /**
     * Adds the gradients of ∑ −w log p, of a weight for each position that has a label. Policy gradients and every other loss come to
     * that, once log p is known.
     *
     * @param batch    the micro-batch
     * @param weights  [T]; what is said where there is no label is not looked at
     * @param units    what a step divides by, beside that of other micro-batches
     * @param logProbs [T] receives log p of each label, 0 elsewhere
     * @return its losses, and how many positions count
     */
    public Sums forwardBackward(Batch batch, float[] weights, double units, float[] logProbs) {
        Arguments.given(batch, "batch");
        Arguments.given(weights, "weights");
        Arguments.given(logProbs, "logProbs");
        requireOneEach(batch, weights, "weights");
        requireOneEach(batch, logProbs, "logProbs");
        Arguments.check(units > 0 && Double.isFinite(units), "units", units, "more than 0");
        for (float weight : weights) {
            Arguments.check(Float.isFinite(weight), "a weight", weight, "a finite number");
        }
        return add(session.weighted(batch, weights, units, logProbs));
    }

    private static void requireOneEach(Batch batch, float[] values, String name) {
        Arguments.check(
                values.length == batch.tokenCount(),
                name,
                values.length + " numbers",
                "one for each of " + batch.tokenCount() + " tokens");
    }

    /**
     * The same of records, all of them as one micro-batch.
     *
     * @param data   the records
     * @param config the template, the longest length, and what is trained on
     * @return their losses, and how many positions count
     * @throws dev.lorica.data.DataException if one of them is longer than {@link DataConfig#maxLength} where that is an error
     */
    public Sums forwardBackward(Dataset data, DataConfig config) {
        Arguments.given(data, "data");
        Arguments.given(config, "config");
        TokenizedDataset examples = TokenizedDataset.of(data, adapter.model().tokenizer(), config);
        if (examples.size() == 0) {
            throw new InvalidArgumentException("there is nothing to learn in the records");
        }
        TokenizedDataset scored = objective.scoresPrompts() ? examples.withScoredPrompts() : examples;
        return forwardBackward(Packer.inOrder(scored, scored.size()).get(0));
    }

    private Sums add(GradientSums sums) {
        lossSum += sums.lossSum();
        units += sums.units();
        return new Sums(
                sums.lossSum(),
                sums.units(),
                sums.trained(),
                sums.tokens(),
                sums.metrics().means());
    }

    /**
     * {@return log p of each label, 0 where there is none; without dropout, and no gradients}
     *
     * @param batch the micro-batch
     */
    public float[] logProbs(Batch batch) {
        return session.logProbs(Arguments.given(batch, "batch"), true);
    }

    /**
     * One step with the gradients so far, which are none afterwards.
     *
     * @param learningRate of this step
     * @param weightDecay  AdamW's, of this step
     * @param maxGradNorm  0: they are not clipped
     * @return the norm of the gradients, and the number of the step
     * @throws InvalidArgumentException if there are no gradients
     */
    public Step optimStep(double learningRate, double weightDecay, double maxGradNorm) {
        if (units == 0) {
            throw new InvalidArgumentException("there are no gradients to take a step with");
        }
        double loss = lossSum / units;
        double scale = 1.0 / units;
        lossSum = 0;
        units = 0;
        double norm = session.optimizerStep(learningRate, weightDecay, scale, maxGradNorm);
        return new Step(++steps, loss, norm);
    }

    /** {@return what {@link #forwardBackward(Batch)} makes small} */
    public Objective objective() {
        return objective;
    }

    /** {@return the largest micro-batch} */
    public BatchShape shape() {
        return shape;
    }

    /** {@return steps that were taken} */
    public int steps() {
        return steps;
    }

    @Override
    public void close() {
        session.close();
    }
}
