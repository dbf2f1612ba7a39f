package dev.lorica.train;

import dev.lorica.TokenizerInfo;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.Method;
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.data.TextEncoder;
import dev.lorica.eval.ClassMetrics;
import dev.lorica.eval.Loss;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.NonFiniteException;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeSession;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;

/** A training session of this machine: gradients, optimizer state and scratch memory for batches up to a planned shape. */
final class LocalSession implements GradientSource, AutoCloseable {

    /**
     * @param flopsPerToken operations that a token counts as
     * @param peakFlops     what the device could do per second; 0: not known
     */
    record Speed(double flopsPerToken, double peakFlops) {
        double utilization(double tokensPerSecond) {
            // A peak that was measured while others had the processor is one that a step exceeds.
            return peakFlops > 0 ? Math.min(1, tokensPerSecond * flopsPerToken / peakFlops) : 0;
        }
    }

    private final BatchShape shape;
    private final NativeSession engine;
    private final Objective objective;
    private float[] lastLosses;
    private final TokenizerInfo tokenizer;

    /** Of plain fine-tuning. */
    LocalSession(Adapter adapter, TrainingConfig config, BatchShape shape) {
        this(adapter, config, Objective.sft(), shape);
    }

    LocalSession(Adapter adapter, TrainingConfig config, Objective objective, BatchShape shape) {
        this(adapter, config, objective, shape, false);
        double ratio = config.loraplusLrRatio();
        if (adapter.info().method() != Method.LORA && ratio != 1) {
            throw new InvalidArgumentException("LoRA+ is a learning rate for B, which only a LoRA has");
        }
        List<Adapter.Tensor> tensors = adapter.tensors();
        for (int i = 0; i < tensors.size(); i++) {
            Adapter.Tensor tensor = tensors.get(i);
            // LoRA+: all but A and whole matrices learns faster, as PEFT's create_loraplus_optimizer has it.
            boolean plain = tensor.isA() || tensor.isOfClassifier() || tensor.isWhole() && !tensor.isVector();
            // Biases and norms are not drawn towards 0, as transformers' Trainer has it.
            if (!plain && ratio != 1 || tensor.isVector()) {
                engine.setGroup(i, plain ? 1 : ratio, tensor.isVector() ? 0 : 1);
            }
        }
    }

    /** Without an optimizer: gradients, and no steps. */
    static LocalSession ofGradients(Adapter adapter, TrainingConfig config, Objective objective, BatchShape shape) {
        return new LocalSession(adapter, config, objective, shape, true);
    }

    private LocalSession(
            Adapter adapter, TrainingConfig config, Objective objective, BatchShape shape, boolean gradientsOnly) {
        this.shape = shape;
        this.objective = objective;
        this.tokenizer = adapter.model().tokenizer().info();
        engine = new NativeSession(Inner.ADAPTER.of(adapter), params(config, shape, gradientsOnly));
    }

    /** What such a session would need, without allocating it. */
    static MemoryPlan plan(Adapter adapter, TrainingConfig config, BatchShape shape) {
        return plan(adapter, config, shape, false);
    }

    /** @param gradientsOnly of {@link #ofGradients} */
    static MemoryPlan plan(Adapter adapter, TrainingConfig config, BatchShape shape, boolean gradientsOnly) {
        return NativeSession.plan(Inner.ADAPTER.of(adapter), params(config, shape, gradientsOnly), MemoryPlan::new);
    }

    private static NativeSession.Params params(TrainingConfig config, BatchShape shape, boolean gradientsOnly) {
        return new NativeSession.Params(
                shape.tokens(),
                shape.sequences(),
                shape.sequenceLength(),
                config.recomputation().code,
                config.optimizer().code,
                config.neftuneNoiseAlpha(),
                config.adamBeta1(),
                config.adamBeta2(),
                config.adamEpsilon(),
                config.seed(),
                config.memoryLimit(),
                shape.candidates(),
                false,
                gradientsOnly);
    }

    /** Measures, for some milliseconds, what the device can do. */
    Speed measureSpeed() {
        return engine.measureSpeed(Speed::new);
    }

    @Override
    public GradientSums accumulate(List<Batch> group, long first, GradientWorkers.Watch watch) {
        GradientSums sums = GradientSums.NONE;
        for (int i = 0; i < group.size(); i++) {
            if (!watch.begins(i)) {
                return null;
            }
            Batch batch = group.get(i);
            sums = sums.plus(gradients(batch, first + i));
            if (Rollouts.keepsLogProbs(objective, batch)) {
                watch.drewWith(i, lastLogProbs());
            }
            watch.ends(i);
        }
        return sums;
    }

    /** log p of each label of the batch whose gradients came last. */
    float[] lastLogProbs() {
        return negated(lastLosses);
    }

    /**
     * Adds the gradients of a micro-batch to the session's.
     *
     * @param number of it in the whole training; negative: one more than that of the last
     */
    GradientSums gradients(Batch given, long number) {
        Batch batch = seen(given);
        engine.setMicroBatchNumber(number);
        if (objective == Sft.INSTANCE && batch.notes().weights() == null) {
            Loss loss = forwardBackward(batch);
            return new GradientSums(loss.sum(), loss.trained(), loss.trained(), batch.tokenCount(), Metrics.NONE);
        }
        requireFits(batch);
        if (objective instanceof OutputObjective judged) {
            float[] outputs = outputs(judged, batch);
            engine.forwardOutputs(batch.tokens(), batch.positions(), batch.sequenceLengths(), types(batch), outputs);
            OutputObjective.Scores scores = judged.of(outputs, batch);
            engine.backwardOutputs(scores.gradients());
            return sums(scores, batch);
        }
        if (objective.usesTeacher()) {
            Batch.Candidates candidates = candidates(batch);
            float[] losses = new float[candidates.ids().length];
            Loss loss = loss(engine.forwardCandidates(
                    batch.tokens(),
                    batch.labels(),
                    batch.positions(),
                    batch.sequenceLengths(),
                    candidates.ids(),
                    candidates.temperature(),
                    losses));
            ObjectiveResult result = score(batch, losses, null, 0);
            engine.backwardCandidates(result.weights());
            return sums(result, loss, batch);
        }
        // Whatever comes between forward and backward takes the memory of the one away from the other.
        float[] reference = reference(batch);
        double kl = kl(batch);
        float[] losses = new float[batch.tokenCount()];
        Loss loss = loss(
                engine.forward(batch.tokens(), batch.labels(), batch.positions(), batch.sequenceLengths(), losses));
        lastLosses = losses;
        ObjectiveResult result = score(batch, losses, reference, kl);
        engine.backward(result.weights());
        return sums(result, loss, batch);
    }

    /**
     * Adds the gradients of ∑ −w log p.
     *
     * @param logProbs [T] receives log p
     */
    GradientSums weighted(Batch batch, float[] weights, double units, float[] logProbs) {
        requireFits(batch);
        float[] losses = new float[batch.tokenCount()];
        Loss loss = loss(
                engine.forward(batch.tokens(), batch.labels(), batch.positions(), batch.sequenceLengths(), losses));
        double sum = 0;
        float[] own = new float[losses.length];
        for (int t = 0; t < losses.length; t++) {
            boolean labelled = batch.labels()[t] != Batch.IGNORE;
            own[t] = labelled ? weights[t] : 0;
            sum += labelled ? (double) weights[t] * losses[t] : 0;
            logProbs[t] = labelled ? -losses[t] : 0;
        }
        engine.backward(own);
        return new GradientSums(sum, units, loss.trained(), batch.tokenCount(), Metrics.NONE);
    }

    /** What a teacher says is only for an objective that asks for it. */
    private Batch seen(Batch batch) {
        return objective.usesTeacher() || batch.notes().candidates() == null
                ? batch
                : batch.with(batch.notes().withCandidates(null));
    }

    private int[] types(Batch batch) {
        return TextEncoder.types(tokenizer, batch.tokens(), batch.sequenceLengths());
    }

    private static float[] outputs(OutputObjective judged, Batch batch) {
        return new float[batch.sequenceCount() * judged.labels().outputs()];
    }

    /**
     * What the objective makes of a batch, without dropout, gradients untouched.
     *
     * @param classes what is said of classes is added to it; {@code null}: there are none
     */
    GradientSums measure(Batch given, ClassMetrics classes) {
        Batch batch = seen(given);
        requireFits(batch);
        if (objective instanceof OutputObjective judged) {
            float[] outputs = outputs(judged, batch);
            engine.evaluateOutputs(batch.tokens(), batch.positions(), batch.sequenceLengths(), types(batch), outputs);
            if (classes != null) {
                int n = judged.labels().outputs();
                for (int row = 0; row < batch.sequenceCount(); row++) {
                    classes.add(
                            Arrays.copyOfRange(outputs, row * n, (row + 1) * n),
                            batch.notes().values()[row]);
                }
            }
            return sums(judged.of(outputs, batch), batch);
        }
        if (objective.usesTeacher()) {
            Batch.Candidates candidates = candidates(batch);
            float[] losses = new float[candidates.ids().length];
            Loss loss = loss(engine.evaluateCandidates(
                    batch.tokens(),
                    batch.labels(),
                    batch.positions(),
                    batch.sequenceLengths(),
                    candidates.ids(),
                    candidates.temperature(),
                    losses));
            return sums(score(batch, losses, null, 0), loss, batch);
        }
        float[] reference = reference(batch);
        double kl = kl(batch);
        float[] losses = new float[batch.tokenCount()];
        Loss loss = losses(batch, losses, true);
        return sums(score(batch, losses, reference, kl), loss, batch);
    }

    private static GradientSums sums(OutputObjective.Scores scores, Batch batch) {
        return new GradientSums(
                scores.lossSum(), scores.units(), batch.sequenceCount(), batch.tokenCount(), scores.metrics());
    }

    private static GradientSums sums(ObjectiveResult result, Loss loss, Batch batch) {
        return new GradientSums(result.lossSum(), result.units(), loss.trained(), batch.tokenCount(), result.metrics());
    }

    private ObjectiveResult score(Batch batch, float[] losses, float[] reference, double kl) {
        ObjectiveResult result = objective.usesTeacher()
                ? new ObjectiveResult(batch.notes().candidates())
                : new ObjectiveResult(batch.tokenCount());
        objective.score(new ScoredBatch(batch, negated(losses), reference, kl), result);
        if (!Double.isFinite(result.lossSum()) || !(result.units() > 0)) {
            throw new NonFiniteException("the objective " + objective.inWords() + " made a loss of " + result.lossSum()
                    + " over " + result.units() + " units");
        }
        return result;
    }

    private Batch.Candidates candidates(Batch batch) {
        Batch.Candidates candidates = batch.notes().candidates();
        if (candidates == null) {
            throw new InvalidArgumentException(Trainer.noTeacher(objective));
        }
        return candidates;
    }

    /** log p of each label by the reference: as it is known, or by the model without its adapter. */
    private float[] reference(Batch batch) {
        if (!objective.usesReference()) {
            return null;
        }
        if (batch.notes().reference() != null) {
            return batch.notes().reference();
        }
        return logProbs(batch, false);
    }

    /** log p of each label, 0 where there is none. */
    float[] logProbs(Batch batch, boolean withAdapter) {
        float[] losses = new float[batch.tokenCount()];
        losses(batch, losses, withAdapter);
        return negated(losses);
    }

    private Loss losses(Batch batch, float[] losses, boolean withAdapter) {
        requireFits(batch);
        return loss(
                withAdapter
                        ? engine.evaluate(
                                batch.tokens(), batch.labels(), batch.positions(), batch.sequenceLengths(), losses)
                        : engine.evaluateBase(
                                batch.tokens(), batch.labels(), batch.positions(), batch.sequenceLengths(), losses));
    }

    private static float[] negated(float[] losses) {
        float[] logProbs = new float[losses.length];
        for (int t = 0; t < losses.length; t++) {
            logProbs[t] = -losses[t];
        }
        return logProbs;
    }

    private double kl(Batch batch) {
        if (!objective.usesKl()) {
            return 0;
        }
        Batch mismatched = Mismatched.of(batch, shape.sequenceLength());
        float[] model = new float[mismatched.tokenCount()];
        float[] base = new float[mismatched.tokenCount()];
        if (mismatched.trainedCount() == 0) {
            return 0;
        }
        losses(mismatched, model, true);
        losses(mismatched, base, false);
        double sum = 0;
        for (int t = 0; t < model.length; t++) {
            sum += (double) base[t] - model[t];
        }
        return Math.max(0, sum / mismatched.sequenceCount());
    }

    /** Adds the gradients of the loss sum to the session's. */
    Loss forwardBackward(Batch batch) {
        requireFits(batch);
        return loss(engine.forwardBackward(batch.tokens(), batch.labels(), batch.positions(), batch.sequenceLengths()));
    }

    /** Loss alone: no dropout, gradients untouched. */
    Loss evaluate(Batch batch) {
        requireFits(batch);
        return loss(engine.evaluate(batch.tokens(), batch.labels(), batch.positions(), batch.sequenceLengths(), null));
    }

    private void requireFits(Batch batch) {
        BatchShape given = BatchShape.of(seen(batch));
        if (!given.fits(shape)) {
            throw new InvalidArgumentException("a batch of " + given + " is larger than the session's " + shape);
        }
    }

    private static Loss loss(NativeSession.Loss loss) {
        return new Loss(loss.sum(), loss.trained());
    }

    void zeroGradients() {
        engine.zeroGradients();
    }

    /** Copies the gradient sums of all tensors, one behind the other, into {@code values}. */
    void getGradients(float[] values) {
        engine.getGradients(values);
    }

    /** Puts gradient sums of all tensors, one behind the other, in the place of the session's. */
    void setGradients(float[] values) {
        engine.setGradients(values);
    }

    /**
     * From any thread: while cancelled, batches end soon with a {@link dev.lorica.exceptions.CancelledException}, also one that runs
     * already; the gradients are of no use then.
     */
    void cancel(boolean cancelled) {
        engine.cancel(cancelled);
    }

    /** One AdamW step with the gradients scaled by {@code gradScale}; they are zero afterwards. Returns their norm. */
    double optimizerStep(double learningRate, double weightDecay, double gradScale, double maxGradNorm) {
        return engine.optimizerStep(learningRate, weightDecay, gradScale, maxGradNorm);
    }

    /** Writes everything that the next step depends on, as it was after the last step. */
    void saveState(Path file) {
        engine.saveState(file.toString());
    }

    /** Takes over what {@link #saveState} wrote, the adapter's values included. */
    void loadState(Path file) {
        engine.loadState(file.toString());
    }

    @Override
    public void close() {
        engine.close();
    }
}
