package dev.lorica.train;

import dev.lorica.adapter.Adapter;
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.generate.BatchGenerator;
import dev.lorica.generate.GenerationResult;
import java.util.List;
import java.util.function.BooleanSupplier;

/**
 * Machines that compute the gradients of a training's micro-batches, each with the same model: a cluster. The trainer that has some
 * ({@link Trainer#workers}) only takes the optimizer's steps, evaluates and keeps what is to be kept.
 *
 * <p>What they give has to be the sum in the order of {@link GradientTree}, so that it does not depend on how many they are, and on
 * which of them computed what. On each of them a {@link GradientWorker} computes.
 *
 * <p>Where a model learns from its own answers, they draw these too. They are judged on the machine of the trainer.
 */
public interface GradientWorkers extends AutoCloseable {

    /** What the trainer wants to know while gradients are computed. Numbers are places in the group, from 0. */
    @FunctionalInterface
    interface Watch {
        /**
         * Before a micro-batch; false: training is to stop, and the group is given up. Cheap, and may be asked again.
         *
         * @param number of the micro-batch within its group, from 0
         * @return false: training is to stop
         */
        boolean begins(int number);

        /**
         * After a micro-batch.
         *
         * @param number of the micro-batch within its group, from 0
         */
        default void ends(int number) {}

        /**
         * Before {@link #ends}, with what {@link GradientWorker#logProbs} gives, where that is something.
         *
         * @param number   of the micro-batch within its group, from 0
         * @param logProbs log p of each label
         */
        default void drewWith(int number, float[] logProbs) {}

        /**
         * A micro-batch could not be computed; what comes next is an exception that says why.
         *
         * @param number of the micro-batch within its group, from 0
         */
        default void fails(int number) {}
    }

    /**
     * Once, before the first step.
     *
     * @param adapter   what is trained; its values come with each step
     * @param config    settings of the training
     * @param objective what makes a loss of log-probabilities; without what judges answers, which stays with the trainer
     * @param shape     the largest micro-batch that there will be
     */
    void open(Adapter adapter, TrainingConfig config, Objective objective, BatchShape shape);

    /**
     * The gradients of a group of micro-batches.
     *
     * @param parameters of the adapter, all tensors one behind the other
     * @param group      the micro-batches of one optimizer step; each is made when it is asked for
     * @param first      number of the first of them in the whole training, from 0
     * @param watch      hears of micro-batches, and may end it
     * @return the sums; {@code null} when {@code watch} ended it
     */
    Gradients compute(float[] parameters, List<Batch> group, long first, Watch watch);

    /**
     * Draws texts, for {@link Objective#grpo}. What comes of one of {@code calls} has to depend on that one alone, as it does where
     * {@link GradientWorker#generate} is given one of them at a time. Workers that do not have this refuse it.
     *
     * @param parameters of the adapter, all tensors one behind the other
     * @param calls      the requests of each call
     * @param stop       asked now and then; true ends it
     * @return of each call a text for each request, in their order; {@code null} when {@code stop} ended it
     */
    default List<List<GenerationResult>> generate(
            float[] parameters, List<List<BatchGenerator.Request>> calls, BooleanSupplier stop) {
        throw new InvalidArgumentException(
                "these workers draw no answers, which grpo learns from; train it on workers that do, or on one machine");
    }

    /** Once, after the last step, or after what went wrong. */
    @Override
    void close();
}
