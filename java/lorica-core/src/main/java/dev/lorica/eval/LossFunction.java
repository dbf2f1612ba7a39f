package dev.lorica.eval;

import dev.lorica.data.Batch;

/** Who computes the loss of a batch as it is measured: without dropout, and without a trace. */
@FunctionalInterface
public interface LossFunction {
    Loss of(Batch batch);
}
