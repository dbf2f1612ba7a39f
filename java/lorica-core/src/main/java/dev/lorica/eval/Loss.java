package dev.lorica.eval;

import dev.lorica.internal.Arguments;

/**
 * The loss of one or more batches.
 *
 * @param sum     sum of −log p over the positions that are trained on
 * @param trained how many these are
 */
public record Loss(double sum, long trained) {
    /**
     * {@return both together}
     *
     * @param other the loss of other positions
     */
    public Loss plus(Loss other) {
        Arguments.given(other, "other");
        return new Loss(sum + other.sum, trained + other.trained);
    }

    /** {@return of a position} */
    public double mean() {
        return trained == 0 ? Double.NaN : sum / trained;
    }
}
