package dev.lorica.eval;

import dev.lorica.data.Batch;

/** Who computes the loss of a batch as it is measured: without dropout, and without a trace. */
@FunctionalInterface
public interface LossFunction {
    /**
     * {@return the sum of the losses of a batch, and how many positions count in it}
     *
     * @param batch packed examples with their labels
     */
    Loss of(Batch batch);
}
