package dev.lorica.train;

import static dev.lorica.internal.Status.check;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.data.Batch;
import dev.lorica.data.Packer;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.NativeHandle;
import dev.lorica.internal.Text;
import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_batch;
import dev.lorica.internal.c.lorica_batch_result;
import dev.lorica.internal.c.lorica_optimizer_step_params;
import dev.lorica.internal.c.lorica_train;
import dev.lorica.internal.c.lorica_train_params;
import dev.lorica.internal.c.lorica_train_plan;
import dev.lorica.internal.c.lorica_train_speed;
import java.lang.ref.Reference;
import java.nio.file.Path;
import java.util.List;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.IntPointer;

/** One native training session: gradients, optimizer state and scratch memory for batches up to a planned shape. */
public final class TrainSession implements AutoCloseable {

    /** The largest batches that a session is planned for. */
    public record Shape(int tokens, int sequences, int sequenceLength) {
        public static Shape of(Batch batch) {
            return new Shape(batch.tokenCount(), batch.sequenceCount(), batch.longestSequence());
        }

        public static Shape largest(Packer.Batches batches) {
            Shape shape = new Shape(1, 1, 1);
            for (int i = 0; i < batches.size(); i++) {
                shape = shape.max(
                        new Shape(Math.toIntExact(batches.tokens(i)), batches.examples(i), batches.longest(i)));
            }
            return shape;
        }

        Shape max(Shape other) {
            return new Shape(
                    Math.max(tokens, other.tokens),
                    Math.max(sequences, other.sequences),
                    Math.max(sequenceLength, other.sequenceLength));
        }
    }

    /**
     * @param sum     sum of −log p over the positions that are trained on
     * @param trained how many these are
     */
    public record Loss(double sum, long trained) {}

    /**
     * @param flopsPerToken operations that a token counts as
     * @param peakFlops     what the device could do per second; 0: not known
     */
    public record Speed(double flopsPerToken, double peakFlops) {
        public double utilization(double tokensPerSecond) {
            return peakFlops > 0 ? tokensPerSecond * flopsPerToken / peakFlops : 0;
        }
    }

    private final Adapter adapter;
    private final Shape shape;
    private final NativeHandle<lorica_train> handle;
    private final Buffers buffers;

    public TrainSession(Model model, Adapter adapter, TrainingConfig config, Shape shape) {
        this.adapter = adapter;
        this.shape = shape;
        lorica_train pointer = new lorica_train();
        try (lorica_train_params params = params(config, shape)) {
            check(model.handle()
                    .shared(m -> adapter.handle().exclusive(a -> Lorica.lorica_train_create(m, a, params, pointer))));
        }
        // Freeing a session touches its adapter, so that is counted as well.
        handle = new NativeHandle<>(
                "the training session", pointer, Lorica::lorica_train_free, model.handle(), adapter.handle());
        buffers = new Buffers(shape);
        if (config.loraplusLrRatio() != 1) {
            setGroups((float) config.loraplusLrRatio());
        }
    }

    /** LoRA+: all but A learns faster, as PEFT's create_loraplus_optimizer has it. */
    private void setGroups(float ratio) {
        List<Adapter.Tensor> tensors = adapter.tensors();
        for (int i = 0; i < tensors.size(); i++) {
            int index = i;
            if (!tensors.get(i).isA()) {
                check(handle.exclusive(train -> Lorica.lorica_train_set_group(train, index, ratio, 1)));
            }
        }
    }

    /** What such a session would need, without allocating it. */
    public static MemoryPlan plan(Model model, Adapter adapter, TrainingConfig config, Shape shape) {
        try (lorica_train_params params = params(config, shape);
                lorica_train_plan plan = new lorica_train_plan()) {
            check(model.handle()
                    .shared(m -> adapter.handle().shared(a -> Lorica.lorica_train_get_plan(m, a, params, plan))));
            return new MemoryPlan(
                    plan.weights(),
                    plan.adapter(),
                    plan.gradients(),
                    plan.optimizer(),
                    plan.activations(),
                    plan.workspace(),
                    plan.total(),
                    plan.available(),
                    plan.recomputed_layers(),
                    plan.fits());
        }
    }

    private static lorica_train_params params(TrainingConfig config, Shape shape) {
        return Lorica.lorica_train_default_params()
                .max_tokens(shape.tokens())
                .max_sequences(shape.sequences())
                .max_sequence_length(shape.sequenceLength())
                .checkpointing(
                        switch (config.checkpointing()) {
                            case AUTO -> Lorica.LORICA_CHECKPOINTING_AUTO;
                            case OFF -> Lorica.LORICA_CHECKPOINTING_OFF;
                            case ON -> Lorica.LORICA_CHECKPOINTING_ON;
                        })
                .optimizer(
                        switch (config.optimizer()) {
                            case ADAMW -> Lorica.LORICA_OPTIMIZER_ADAMW;
                            case ADAMW_8BIT -> Lorica.LORICA_OPTIMIZER_ADAMW_8BIT;
                        })
                .neftune_alpha((float) config.neftuneNoiseAlpha())
                .beta1((float) config.adamBeta1())
                .beta2((float) config.adamBeta2())
                .eps((float) config.adamEpsilon())
                .seed(config.seed())
                .memory_limit(config.memoryLimit());
    }

    /** Measures, for some milliseconds, what the device can do. */
    public Speed measureSpeed() {
        return handle.exclusive(train -> {
            try (lorica_train_speed speed = new lorica_train_speed()) {
                check(Lorica.lorica_train_measure_speed(train, speed));
                return new Speed(speed.flops_per_token(), speed.peak_flops());
            }
        });
    }

    /** Adds the gradients of the loss sum to the session's. */
    public Loss forwardBackward(Batch batch) {
        return loss(batch, Lorica::lorica_train_forward_backward);
    }

    /** Loss alone: no dropout, gradients untouched. */
    public Loss evaluate(Batch batch) {
        return loss(batch, (train, b, result) -> Lorica.lorica_train_evaluate(train, b, (FloatPointer) null, result));
    }

    /**
     * The same, with the loss of each position.
     *
     * @param losses [tokens] receives −log p of each label, 0 where there is none
     */
    public Loss evaluate(Batch batch, float[] losses) {
        if (losses.length != batch.tokenCount()) {
            throw new InvalidArgumentException(losses.length + " losses for " + batch.tokenCount() + " tokens");
        }
        return loss(batch, (train, b, result) -> Lorica.lorica_train_evaluate(train, b, losses, result));
    }

    private interface LossCall {
        int on(lorica_train train, lorica_batch batch, lorica_batch_result result);
    }

    private Loss loss(Batch batch, LossCall call) {
        Shape given = Shape.of(batch);
        if (!shape.max(given).equals(shape)) {
            throw new InvalidArgumentException("a batch of " + given + " is larger than the session's " + shape);
        }
        return adapter.handle()
                .exclusive(a -> handle.exclusive(train -> {
                    buffers.fill(batch);
                    try (lorica_batch_result result = new lorica_batch_result()) {
                        check(call.on(train, buffers.batch, result));
                        return new Loss(result.loss_sum(), result.n_trained());
                    } finally {
                        Reference.reachabilityFence(buffers);
                    }
                }));
    }

    /** One AdamW step with the gradients scaled by {@code gradScale}; they are zero afterwards. Returns their norm. */
    public double optimizerStep(double learningRate, double weightDecay, double gradScale, double maxGradNorm) {
        float[] norm = new float[1];
        try (lorica_optimizer_step_params params = new lorica_optimizer_step_params()) {
            params.learning_rate((float) learningRate)
                    .weight_decay((float) weightDecay)
                    .grad_scale((float) gradScale)
                    .max_grad_norm((float) maxGradNorm);
            adapter.changing(a -> handle.exclusive(train -> {
                check(Lorica.lorica_train_optimizer_step(train, params, norm));
                return null;
            }));
        }
        return norm[0];
    }

    /** Writes everything that the next step depends on, as it was after the last step. */
    public void saveState(Path file) {
        try (BytePointer path = Text.copy("the path", file.toString())) {
            check(adapter.handle().shared(a -> handle.exclusive(train -> Lorica.lorica_train_save_state(train, path))));
        }
    }

    /** Takes over what {@link #saveState} wrote, the adapter's values included. */
    public void loadState(Path file) {
        try (BytePointer path = Text.copy("the path", file.toString())) {
            adapter.changing(a -> handle.exclusive(train -> {
                check(Lorica.lorica_train_load_state(train, path));
                return null;
            }));
        }
    }

    @Override
    public void close() {
        handle.close();
    }

    /** Native copies of one batch at a time. Freed by JavaCPP when the session is unreachable, so never under a running call. */
    private static final class Buffers {
        private final IntPointer tokens;
        private final IntPointer labels;
        private final IntPointer positions;
        private final IntPointer sequenceLengths;
        private final lorica_batch batch = new lorica_batch();

        Buffers(Shape shape) {
            tokens = new IntPointer(shape.tokens());
            labels = new IntPointer(shape.tokens());
            positions = new IntPointer(shape.tokens());
            sequenceLengths = new IntPointer(shape.sequences());
            batch.tokens(tokens).labels(labels).positions(positions).sequence_lengths(sequenceLengths);
        }

        void fill(Batch from) {
            tokens.put(from.tokens());
            labels.put(from.labels());
            positions.put(from.positions());
            sequenceLengths.put(from.sequenceLengths());
            batch.n_tokens(from.tokenCount()).n_sequences(from.sequenceCount());
        }
    }
}
