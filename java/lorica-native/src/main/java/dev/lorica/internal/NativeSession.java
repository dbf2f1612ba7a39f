package dev.lorica.internal;

import static dev.lorica.internal.Status.check;

import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_adapter;
import dev.lorica.internal.c.lorica_batch;
import dev.lorica.internal.c.lorica_batch_result;
import dev.lorica.internal.c.lorica_memory_plan;
import dev.lorica.internal.c.lorica_optimizer_step_params;
import dev.lorica.internal.c.lorica_session;
import dev.lorica.internal.c.lorica_session_params;
import dev.lorica.internal.c.lorica_session_speed;
import java.lang.ref.Reference;
import java.util.function.Function;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.IntPointer;

/** A training session, as the native library holds it: gradients, the optimizer's state, and memory for batches up to a shape. */
public final class NativeSession implements AutoCloseable {
    public static final int RECOMPUTATION_AUTO = Lorica.LORICA_RECOMPUTATION_AUTO;
    public static final int RECOMPUTATION_OFF = Lorica.LORICA_RECOMPUTATION_OFF;
    public static final int RECOMPUTATION_ON = Lorica.LORICA_RECOMPUTATION_ON;
    public static final int OPTIMIZER_ADAMW = Lorica.LORICA_OPTIMIZER_ADAMW;
    public static final int POOLING_MEAN = Lorica.LORICA_POOLING_MEAN;
    public static final int POOLING_FIRST = Lorica.LORICA_POOLING_FIRST;
    public static final int POOLING_LAST = Lorica.LORICA_POOLING_LAST;
    public static final int OPTIMIZER_ADAMW_8BIT = Lorica.LORICA_OPTIMIZER_ADAMW_8BIT;

    /**
     * @param maxTokens         of a batch; this and the next two are what memory is planned for
     * @param maxSequences      of a batch
     * @param maxSequenceLength tokens of one of them
     * @param recomputation     one of the constants above
     * @param optimizer         one of the constants above
     * @param candidates        the most tokens of a position in {@link #forwardCandidates}; 0: that is not wanted
     * @param likeliest         whether {@link #evaluateLikeliest} is wanted
     * @param gradientsOnly     whether it is without an optimizer: what is about steps, groups and states is refused
     */
    public record Params(
            int maxTokens,
            int maxSequences,
            int maxSequenceLength,
            int recomputation,
            int optimizer,
            double neftuneAlpha,
            double beta1,
            double beta2,
            double epsilon,
            long seed,
            long memoryLimit,
            int candidates,
            boolean likeliest,
            boolean gradientsOnly) {

        /** Of a session that trains nothing, with hidden states of up to so many tokens. */
        public static Params ofFeatures(int maxTokens, int maxSequences, int maxSequenceLength) {
            return evaluating(maxTokens, maxSequences, maxSequenceLength, false);
        }

        /** Of one that trains nothing and finds the likeliest tokens of positions. */
        public static Params ofLikeliest(int maxTokens, int maxSequences, int maxSequenceLength) {
            return evaluating(maxTokens, maxSequences, maxSequenceLength, true);
        }

        private static Params evaluating(int maxTokens, int maxSequences, int maxSequenceLength, boolean likeliest) {
            return new Params(
                    maxTokens,
                    maxSequences,
                    maxSequenceLength,
                    RECOMPUTATION_ON,
                    OPTIMIZER_ADAMW,
                    0,
                    0.9,
                    0.999,
                    1e-8,
                    42,
                    0,
                    0,
                    likeliest,
                    false);
        }

        lorica_session_params toNative() {
            return Structs.<lorica_session_params>defaults(
                            lorica_session_params::new,
                            lorica_session_params::struct_size,
                            Lorica::lorica_session_default_params)
                    .max_tokens(maxTokens)
                    .max_sequences(maxSequences)
                    .max_sequence_length(maxSequenceLength)
                    .recomputation(recomputation)
                    .optimizer(optimizer)
                    .neftune_alpha(neftuneAlpha)
                    .beta1(beta1)
                    .beta2(beta2)
                    .eps(epsilon)
                    .seed(seed)
                    .memory_limit(memoryLimit)
                    .features(true)
                    .n_candidates(candidates)
                    .likeliest(likeliest)
                    .gradients_only(gradientsOnly);
        }
    }

    /**
     * @param sum     sum of −log p over the positions that are trained on
     * @param trained how many these are
     */
    public record Loss(double sum, long trained) {}

    /** {@code null}: the model as it is, which is only evaluated. */
    private final NativeAdapter adapter;

    private final NativeHandle<lorica_session> handle;
    private final Buffers buffers;
    /** Of the next micro-batch that gradients are asked of; negative: one more than that of the last. */
    private long nextNumber = -1;

    public NativeSession(NativeAdapter adapter, Params given) {
        this(adapter.model, adapter, given);
    }

    /** Of a model without an adapter: it takes losses and nothing else. */
    public NativeSession(NativeModel model, Params given) {
        this(model, null, given);
    }

    private NativeSession(NativeModel model, NativeAdapter adapter, Params given) {
        this.adapter = adapter;
        lorica_session pointer = new lorica_session();
        NativeLibrary.reserveHeap();
        try (lorica_session_params params = given.toNative()) {
            check(model.handle.shared(m -> withAdapter(a -> Lorica.lorica_session_create(m, a, params, pointer))));
        }
        // Freeing a session touches its adapter, so that is counted as well.
        handle = adapter == null
                ? new NativeHandle<>("the training session", pointer, Lorica::lorica_session_free, model.handle)
                : new NativeHandle<>(
                        "the training session", pointer, Lorica::lorica_session_free, model.handle, adapter.handle);
        buffers = new Buffers(given.maxTokens(), given.maxSequences());
    }

    /** Nobody else uses the adapter meanwhile, where there is one. */
    private <R> R withAdapter(Function<lorica_adapter, R> call) {
        return adapter == null ? call.apply(null) : adapter.handle.exclusive(call);
    }

    /** What becomes of a plan. */
    public interface Plan<R> {
        R of(
                long weights,
                long adapter,
                long gradients,
                long optimizer,
                long activations,
                long workspace,
                long total,
                long available,
                int recomputedLayers,
                boolean fits);
    }

    /** What such a session would need, without allocating it. */
    public static <R> R plan(NativeAdapter adapter, Params given, Plan<R> plan) {
        NativeLibrary.reserveHeap();
        try (lorica_session_params params = given.toNative();
                lorica_memory_plan p = Structs.sized(lorica_memory_plan::new, lorica_memory_plan::struct_size)) {
            check(adapter.model.handle.shared(
                    m -> adapter.handle.shared(a -> Lorica.lorica_session_get_plan(m, a, params, p))));
            return plan.of(
                    p.weights(),
                    p.adapter(),
                    p.gradients(),
                    p.optimizer(),
                    p.activations(),
                    p.workspace(),
                    p.total(),
                    p.available(),
                    p.recomputed_layers(),
                    p.fits());
        }
    }

    /** A tensor's own multiples of the learning rate and of the weight decay. */
    public void setGroup(int tensor, double learningRateFactor, double weightDecayFactor) {
        check(handle.exclusive(
                train -> Lorica.lorica_session_set_group(train, tensor, learningRateFactor, weightDecayFactor)));
    }

    /** What becomes of a measured speed. */
    public interface Speed<R> {
        R of(double flopsPerToken, double peakFlops);
    }

    /** Measures, for some milliseconds, what the device can do. */
    public <R> R measureSpeed(Speed<R> speed) {
        return handle.exclusive(train -> {
            try (lorica_session_speed s = Structs.sized(lorica_session_speed::new, lorica_session_speed::struct_size)) {
                check(Lorica.lorica_session_measure_speed(train, s));
                return speed.of(s.flops_per_token(), s.peak_flops());
            }
        });
    }

    /** Adds the gradients of the loss sum to the session's. */
    public Loss forwardBackward(int[] tokens, int[] labels, int[] positions, int[] sequenceLengths) {
        return loss(
                tokens,
                labels,
                positions,
                sequenceLengths,
                (train, batch, result) -> Lorica.lorica_session_forward_backward(train, numbered(batch), result));
    }

    /**
     * Numbers the micro-batch whose gradients are asked for next, which seeds its dropout and noise. Those behind it are numbered on.
     *
     * @param number in the whole training, from 0
     */
    public void setMicroBatchNumber(long number) {
        nextNumber = number;
    }

    /** Forgets the gradients that were added up. */
    public void zeroGradients() {
        check(handle.exclusive(Lorica::lorica_session_zero_gradients));
    }

    /** Copies the gradient sums of all tensors, one behind the other, into {@code values}. */
    public void getGradients(float[] values) {
        check(handle.exclusive(train -> Lorica.lorica_session_get_gradients(train, values, values.length)));
    }

    /** Puts gradient sums of all tensors, one behind the other, in the place of the session's. */
    public void setGradients(float[] values) {
        check(handle.exclusive(train -> Lorica.lorica_session_set_gradients(train, values, values.length)));
    }

    /**
     * The first half of {@link #forwardBackward}.
     *
     * @param losses [tokens] receives −log p of each label, 0 where there is none
     */
    public Loss forward(int[] tokens, int[] labels, int[] positions, int[] sequenceLengths, float[] losses) {
        return loss(
                tokens,
                labels,
                positions,
                sequenceLengths,
                (train, batch, result) -> Lorica.lorica_session_forward(train, numbered(batch), losses, result));
    }

    /** The second half: adds the gradients of the sum of {@code weights[t]} times the loss of position t to the session's. */
    public void backward(float[] weights) {
        check(adapter.handle.exclusive(
                a -> handle.exclusive(train -> Lorica.lorica_session_backward(train, weights, weights.length))));
    }

    /**
     * The first half for several tokens at each position that has a label, its candidates.
     *
     * @param candidates [positions][candidates] ids, ascending within a position
     * @param losses     [positions][candidates] receives −log p of each, by the softmax of logits / temperature
     */
    public Loss forwardCandidates(
            int[] tokens,
            int[] labels,
            int[] positions,
            int[] sequenceLengths,
            int[] candidates,
            double temperature,
            float[] losses) {
        return loss(
                tokens,
                labels,
                positions,
                sequenceLengths,
                (train, batch, result) -> Lorica.lorica_session_forward_candidates(
                        train, numbered(batch), candidates, candidates.length, temperature, losses, result));
    }

    /** The second half of {@link #forwardCandidates}: a weight for the loss of each candidate. */
    public void backwardCandidates(float[] weights) {
        check(adapter.handle.exclusive(a ->
                handle.exclusive(train -> Lorica.lorica_session_backward_candidates(train, weights, weights.length))));
    }

    /** The losses of candidates alone: no dropout, gradients untouched. */
    public Loss evaluateCandidates(
            int[] tokens,
            int[] labels,
            int[] positions,
            int[] sequenceLengths,
            int[] candidates,
            double temperature,
            float[] losses) {
        return loss(
                tokens,
                labels,
                positions,
                sequenceLengths,
                (train, batch, result) -> Lorica.lorica_session_evaluate_candidates(
                        train, batch, candidates, candidates.length, temperature, losses, result));
    }

    /**
     * The likeliest tokens at each position that has a label, without dropout.
     *
     * @param ids      [positions][tokens] receives them, ascending within a position
     * @param logProbs [positions][tokens] receives log p of each, by the softmax of logits / temperature
     */
    public Loss evaluateLikeliest(
            int[] tokens,
            int[] labels,
            int[] positions,
            int[] sequenceLengths,
            double temperature,
            int[] ids,
            float[] logProbs) {
        return loss(
                tokens,
                labels,
                positions,
                sequenceLengths,
                (train, batch, result) -> Lorica.lorica_session_evaluate_likeliest(
                        train, batch, temperature, ids, logProbs, ids.length, result));
    }

    /**
     * Loss of the model without the adapter.
     *
     * @param losses [tokens] receives −log p of each label, 0 where there is none
     */
    public Loss evaluateBase(int[] tokens, int[] labels, int[] positions, int[] sequenceLengths, float[] losses) {
        return loss(
                tokens,
                labels,
                positions,
                sequenceLengths,
                (train, batch, result) -> Lorica.lorica_session_evaluate_base(train, batch, losses, result));
    }

    /**
     * Loss alone: no dropout, gradients untouched.
     *
     * @param losses [tokens] receives −log p of each label, 0 where there is none; {@code null}: not wanted
     */
    public Loss evaluate(int[] tokens, int[] labels, int[] positions, int[] sequenceLengths, float[] losses) {
        return loss(
                tokens,
                labels,
                positions,
                sequenceLengths,
                losses == null
                        ? (train, batch, result) ->
                                Lorica.lorica_session_evaluate(train, batch, (FloatPointer) null, result)
                        : (train, batch, result) -> Lorica.lorica_session_evaluate(train, batch, losses, result));
    }

    /**
     * What a classifier makes of each sequence, to be followed by {@link #backwardOutputs}.
     *
     * @param types   [tokens] types of tokens, {@code null}: all 0
     * @param outputs [sequences][outputs], one behind the other: receives them
     */
    public void forwardOutputs(int[] tokens, int[] positions, int[] sequenceLengths, int[] types, float[] outputs) {
        outputs(
                tokens,
                positions,
                sequenceLengths,
                types,
                (train, batch) ->
                        Lorica.lorica_session_forward_outputs(train, numbered(batch), outputs, outputs.length));
    }

    /** Adds the gradients of a loss whose derivatives by the outputs are these to the session's. */
    public void backwardOutputs(float[] gradients) {
        check(adapter.handle.exclusive(a ->
                handle.exclusive(train -> Lorica.lorica_session_backward_outputs(train, gradients, gradients.length))));
    }

    /** The outputs alone: no dropout, gradients untouched. */
    public void evaluateOutputs(int[] tokens, int[] positions, int[] sequenceLengths, int[] types, float[] outputs) {
        outputs(
                tokens,
                positions,
                sequenceLengths,
                types,
                (train, batch) -> Lorica.lorica_session_evaluate_outputs(train, batch, outputs, outputs.length));
    }

    /**
     * A vector for each sequence.
     *
     * @param pooling one of the constants above
     */
    public void embed(
            int[] tokens, int[] positions, int[] sequenceLengths, int[] types, int pooling, float[] embeddings) {
        outputs(
                tokens,
                positions,
                sequenceLengths,
                types,
                (train, batch) -> Lorica.lorica_session_embed(train, batch, pooling, embeddings, embeddings.length));
    }

    private lorica_batch numbered(lorica_batch batch) {
        batch.number(nextNumber);
        nextNumber = -1;
        return batch;
    }

    private interface OutputCall {
        int on(lorica_session train, lorica_batch batch);
    }

    private void outputs(int[] tokens, int[] positions, int[] sequenceLengths, int[] types, OutputCall call) {
        withAdapter(a -> handle.exclusive(train -> {
            buffers.fill(tokens, new int[tokens.length], positions, sequenceLengths);
            try (IntPointer kinds = types == null ? null : Memory.ints(types.length)) {
                if (kinds != null) {
                    kinds.put(types);
                }
                buffers.batch.token_types(kinds);
                check(call.on(train, buffers.batch));
                return null;
            } finally {
                buffers.batch.token_types(null);
                Reference.reachabilityFence(buffers);
            }
        }));
    }

    private interface LossCall {
        int on(lorica_session train, lorica_batch batch, lorica_batch_result result);
    }

    private Loss loss(int[] tokens, int[] labels, int[] positions, int[] sequenceLengths, LossCall call) {
        return withAdapter(a -> handle.exclusive(train -> {
            buffers.fill(tokens, labels, positions, sequenceLengths);
            try (lorica_batch_result result =
                    Structs.sized(lorica_batch_result::new, lorica_batch_result::struct_size)) {
                check(call.on(train, buffers.batch, result));
                return new Loss(result.loss_sum(), result.n_trained());
            } finally {
                Reference.reachabilityFence(buffers);
            }
        }));
    }

    /** From any thread: while cancelled, losses end soon with a CancelledException, also one that is computed already. */
    public void cancel(boolean cancelled) {
        handle.signal(session -> Lorica.lorica_session_cancel(session, cancelled));
    }

    /** One AdamW step with the gradients scaled by {@code gradScale}; they are zero afterwards. Returns their norm. */
    public double optimizerStep(double learningRate, double weightDecay, double gradScale, double maxGradNorm) {
        double[] norm = new double[1];
        try (lorica_optimizer_step_params params = Structs.defaults(
                lorica_optimizer_step_params::new,
                lorica_optimizer_step_params::struct_size,
                Lorica::lorica_optimizer_step_default_params)) {
            params.learning_rate(learningRate)
                    .weight_decay(weightDecay)
                    .grad_scale(gradScale)
                    .max_grad_norm(maxGradNorm);
            check(adapter.changing(
                    a -> handle.exclusive(train -> Lorica.lorica_session_optimizer_step(train, params, norm))));
        }
        return norm[0];
    }

    /** Writes everything that the next step depends on, as it was after the last step. */
    public void saveState(String file) {
        try (BytePointer path = Text.copy("the path", file)) {
            check(adapter.handle.shared(a -> handle.exclusive(train -> Lorica.lorica_session_save_state(train, path))));
        }
    }

    /** Takes over what {@link #saveState} wrote, the adapter's values included. */
    public void loadState(String file) {
        try (BytePointer path = Text.copy("the path", file)) {
            check(adapter.changing(a -> handle.exclusive(train -> Lorica.lorica_session_load_state(train, path))));
        }
    }

    @Override
    public void close() {
        handle.close();
    }

    /** Native copies of one batch at a time. Freed when the session is unreachable, so never under a running call. */
    private static final class Buffers {
        private final IntPointer tokens;
        private final IntPointer labels;
        private final IntPointer positions;
        private final IntPointer sequenceLengths;
        private final lorica_batch batch =
                Structs.defaults(lorica_batch::new, lorica_batch::struct_size, Lorica::lorica_batch_default);

        Buffers(int maxTokens, int maxSequences) {
            tokens = Memory.ints(maxTokens);
            labels = Memory.ints(maxTokens);
            positions = Memory.ints(maxTokens);
            sequenceLengths = Memory.ints(maxSequences);
            batch.tokens(tokens).labels(labels).positions(positions).sequence_lengths(sequenceLengths);
        }

        void fill(int[] ids, int[] targets, int[] places, int[] lengths) {
            tokens.put(ids);
            labels.put(targets);
            positions.put(places);
            sequenceLengths.put(lengths);
            batch.n_tokens(ids.length).n_sequences(lengths.length).number(-1);
        }
    }
}
