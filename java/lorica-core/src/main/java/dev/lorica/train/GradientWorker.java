package dev.lorica.train;

import dev.lorica.adapter.Adapter;
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.MemoryException;
import dev.lorica.exceptions.NonFiniteException;
import dev.lorica.generate.BatchGenerator;
import dev.lorica.generate.GenerationResult;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeAdapter;
import java.util.ArrayList;
import java.util.List;
import java.util.function.BooleanSupplier;

/**
 * What computes gradients on one of {@link GradientWorkers}: the gradients of one micro-batch at a time, with the parameters that it
 * is given. Not for use by several threads at once.
 */
public final class GradientWorker implements AutoCloseable {
    private final Parameters parameters;
    private final Objective objective;
    private final LocalSession session;
    /** {@code null}: the objective is not about answers that are drawn. */
    private final BatchGenerator generator;

    private float[] logProbs;

    /**
     * Takes the memory that is needed, at once: that of {@link #plan}, and where answers are drawn the room for these.
     *
     * @param adapter   of the shapes and settings of the one that is trained; its values are changed
     * @param config    recomputation, noise and precision; what is about the loop is not looked at
     * @param objective what makes a loss of log-probabilities
     * @param shape     the largest micro-batch that there will be
     * @throws MemoryException if that is not there; the message says what would fit
     */
    public GradientWorker(Adapter adapter, TrainingConfig config, Objective objective, BatchShape shape) {
        Arguments.given(adapter, "adapter");
        Arguments.given(config, "config");
        Arguments.given(objective, "objective");
        Arguments.given(shape, "shape");
        this.objective = objective;
        parameters = new Parameters(adapter);
        session = LocalSession.ofGradients(adapter, config, objective, shape);
        try {
            generator = objective instanceof Grpo ? Rollouts.generator(adapter, shape) : null;
        } catch (RuntimeException e) {
            session.close();
            throw e;
        }
    }

    /**
     * {@return what memory it needs} Nothing is allocated. There is no optimizer in it: steps are taken elsewhere.
     *
     * @param adapter of the shapes and settings of the one that is trained
     * @param config  recomputation, noise and precision; what is about the loop is not looked at
     * @param shape   the largest micro-batch that there will be
     */
    public static MemoryPlan plan(Adapter adapter, TrainingConfig config, BatchShape shape) {
        Arguments.given(adapter, "adapter");
        Arguments.given(config, "config");
        Arguments.given(shape, "shape");
        return LocalSession.plan(adapter, config, shape, true);
    }

    /**
     * Puts these in the place of the adapter's, all tensors one behind the other.
     *
     * @param values as many as the adapter has parameters
     */
    public void setParameters(float[] values) {
        parameters.set(Arguments.given(values, "values"));
    }

    /**
     * {@return the gradients of one micro-batch}
     *
     * @param batch  the micro-batch
     * @param number of it in the whole training, from 0, which seeds its dropout and noise
     * @throws NonFiniteException if a loss or gradient is not finite
     */
    public Gradients compute(Batch batch, long number) {
        Arguments.given(batch, "batch");
        session.zeroGradients();
        logProbs = null;
        GradientSums sums = session.gradients(batch, number);
        if (Rollouts.keepsLogProbs(objective, batch)) {
            logProbs = session.lastLogProbs();
        }
        float[] values = new float[parameters.count()];
        session.getGradients(values);
        return new Gradients(values, sums);
    }

    /**
     * {@return log p of each label of the micro-batch that {@link #compute} had last, where {@link GradientWorkers.Watch#drewWith} is to
     * hear of it; {@code null} elsewhere}
     */
    public float[] logProbs() {
        return logProbs;
    }

    /**
     * {@return a text for each request, in their order} With the same parameters and requests they are the same, on every machine of one kind.
     *
     * @param requests what is asked at once
     * @param stop     asked before each token; when it becomes true, texts end as they are, cancelled
     * @throws InvalidArgumentException if the objective is not about answers that are drawn
     */
    public List<GenerationResult> generate(List<BatchGenerator.Request> requests, BooleanSupplier stop) {
        Arguments.all(requests, "requests");
        Arguments.given(stop, "stop");
        if (generator == null) {
            throw new InvalidArgumentException("the objective " + objective.name() + " draws no answers");
        }
        return Rollouts.generate(generator, requests, stop);
    }

    /**
     * From any thread: while cancelled, {@link #compute} ends soon with a {@link dev.lorica.exceptions.CancelledException}.
     *
     * @param cancelled true to end what is computed, false before the next
     */
    public void cancel(boolean cancelled) {
        session.cancel(cancelled);
    }

    @Override
    public void close() {
        if (generator != null) {
            generator.close();
        }
        session.close();
    }

    /** All values of an adapter as one array. */
    static final class Parameters {
        private final NativeAdapter engine;
        private final List<Integer> sizes = new ArrayList<>();
        private final int count;

        Parameters(Adapter adapter) {
            engine = Inner.ADAPTER.of(adapter);
            long sum = 0;
            for (Adapter.Tensor tensor : adapter.tensors()) {
                sizes.add(Math.toIntExact(tensor.rows() * tensor.columns()));
                sum += tensor.rows() * tensor.columns();
            }
            if (sum > Integer.MAX_VALUE - 8) {
                throw new InvalidArgumentException(
                        "the adapter has " + sum + " parameters; more than 2^31 do not go through a cluster");
            }
            count = (int) sum;
        }

        int count() {
            return count;
        }

        float[] get() {
            float[] all = new float[count];
            int at = 0;
            for (int i = 0; i < sizes.size(); i++) {
                float[] one = new float[sizes.get(i)];
                engine.get(i, one);
                System.arraycopy(one, 0, all, at, one.length);
                at += one.length;
            }
            return all;
        }

        void set(float[] all) {
            Arguments.check(all.length == count, "values", all.length + " values", count + " values");
            int at = 0;
            for (int i = 0; i < sizes.size(); i++) {
                float[] one = new float[sizes.get(i)];
                System.arraycopy(all, at, one, 0, one.length);
                engine.set(i, one);
                at += one.length;
            }
        }
    }
}
