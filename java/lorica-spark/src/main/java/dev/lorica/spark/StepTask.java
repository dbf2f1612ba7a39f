package dev.lorica.spark;

import dev.lorica.data.Batch;
import dev.lorica.train.GradientSums;
import dev.lorica.train.GradientTree.Node;
import java.io.Serializable;
import java.util.List;

/**
 * One executor's share of an optimizer step.
 *
 * @param size    micro-batches of the whole step
 * @param share   which of them
 * @param batches those
 * @param first   number of the step's first micro-batch in the whole training
 */
record StepTask(int size, Node share, List<Batch> batches, long first) implements Serializable {

    /**
     * What comes of it.
     *
     * @param share     whose
     * @param sums      of the nodes of the tree that it comes to
     * @param trouble   what went wrong; {@code null}: nothing
     * @param failed    the micro-batch with which it went wrong; −1: before any
     * @param nanos     what the executor took
     * @param computing of that, what the gradients took
     * @param logProbs  of each micro-batch of the share, what {@link dev.lorica.train.GradientWorker#logProbs} gives
     */
    record Result(
            Node share,
            List<NodeSum> sums,
            Trouble trouble,
            int failed,
            long nanos,
            long computing,
            List<float[]> logProbs)
            implements Serializable {

        static Result of(Node share, Trouble trouble, int failed, long nanos) {
            return new Result(share, List.of(), trouble, failed, nanos, 0, List.of());
        }
    }

    /**
     * The sum of a node of the tree.
     *
     * @param node      whose it is
     * @param sums      of the losses, and how many tokens
     * @param gradients as {@link GradientBytes} has them
     */
    record NodeSum(Node node, GradientSums sums, byte[] gradients) implements Serializable {}
}
