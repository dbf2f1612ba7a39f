package dev.lorica.train;

import dev.lorica.adapter.Adapter;
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.eval.Loss;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeTraining;
import java.nio.file.Path;
import java.util.List;

/** A training session of this machine: gradients, optimizer state and scratch memory for batches up to a planned shape. */
final class LocalSession implements GradientSource, AutoCloseable {

    /**
     * @param flopsPerToken operations that a token counts as
     * @param peakFlops     what the device could do per second; 0: not known
     */
    record Speed(double flopsPerToken, double peakFlops) {
        double utilization(double tokensPerSecond) {
            return peakFlops > 0 ? tokensPerSecond * flopsPerToken / peakFlops : 0;
        }
    }

    private final BatchShape shape;
    private final NativeTraining engine;

    LocalSession(Adapter adapter, TrainingConfig config, BatchShape shape) {
        this.shape = shape;
        engine = new NativeTraining(Inner.ADAPTER.of(adapter), params(config, shape));
        if (config.loraplusLrRatio() != 1) {
            setGroups(adapter.tensors(), config.loraplusLrRatio());
        }
    }

    /** LoRA+: all but A learns faster, as PEFT's create_loraplus_optimizer has it. */
    private void setGroups(List<Adapter.Tensor> tensors, double ratio) {
        for (int i = 0; i < tensors.size(); i++) {
            if (!tensors.get(i).isA()) {
                engine.setGroup(i, ratio, 1);
            }
        }
    }

    /** What such a session would need, without allocating it. */
    static MemoryPlan plan(Adapter adapter, TrainingConfig config, BatchShape shape) {
        return NativeTraining.plan(Inner.ADAPTER.of(adapter), params(config, shape), MemoryPlan::new);
    }

    private static NativeTraining.Params params(TrainingConfig config, BatchShape shape) {
        return new NativeTraining.Params(
                shape.tokens(),
                shape.sequences(),
                shape.sequenceLength(),
                config.checkpointing().code,
                config.optimizer().code,
                config.neftuneNoiseAlpha(),
                config.adamBeta1(),
                config.adamBeta2(),
                config.adamEpsilon(),
                config.seed(),
                config.memoryLimit());
    }

    /** Measures, for some milliseconds, what the device can do. */
    Speed measureSpeed() {
        return engine.measureSpeed(Speed::new);
    }

    @Override
    public GradientSums accumulate(List<Batch> group, Watch watch) {
        GradientSums sums = GradientSums.NONE;
        for (int i = 0; i < group.size(); i++) {
            if (!watch.begins(i)) {
                return null;
            }
            Batch batch = group.get(i);
            sums = sums.plus(new GradientSums(forwardBackward(batch), batch.tokenCount()));
            watch.ends(i);
        }
        return sums;
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
        BatchShape given = BatchShape.of(batch);
        if (!given.fits(shape)) {
            throw new InvalidArgumentException("a batch of " + given + " is larger than the session's " + shape);
        }
    }

    private static Loss loss(NativeTraining.Loss loss) {
        return new Loss(loss.sum(), loss.trained());
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
