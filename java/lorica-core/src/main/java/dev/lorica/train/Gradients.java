package dev.lorica.train;

import dev.lorica.internal.Arguments;

/**
 * The gradients of some micro-batches, added up.
 *
 * @param values of all tensors of the adapter, one behind the other
 * @param sums   what the micro-batches add up to otherwise
 */
public record Gradients(float[] values, GradientSums sums) {
    /** Keeps the array as it is, without a copy. */
    public Gradients {
        Arguments.given(values, "values");
        Arguments.given(sums, "sums");
    }

    /**
     * Adds {@code other}, which stands behind this, in place, and returns this with the sums of both.
     *
     * @param other sums of the micro-batches behind these
     * @return this
     */
    public Gradients plus(Gradients other) {
        float[] theirs = Arguments.given(other, "other").values;
        Arguments.check(theirs.length == values.length, "other", theirs.length + " values", values.length + " values");
        for (int i = 0; i < values.length; i++) {
            values[i] += theirs[i];
        }
        return new Gradients(values, sums.plus(other.sums));
    }

    /**
     * Rounds each value to the nearest of bfloat16, ties to even, in place.
     *
     * @return this
     */
    public Gradients roundedToBf16() {
        for (int i = 0; i < values.length; i++) {
            int bits = Float.floatToRawIntBits(values[i]);
            // Of NaN the upper half may be zero but for the exponent, which would be infinity.
            if ((bits & 0x7fffffff) > 0x7f800000) {
                bits |= 0x00400000;
            } else {
                bits += 0x7fff + (bits >>> 16 & 1);
            }
            values[i] = Float.intBitsToFloat(bits & 0xffff0000);
        }
        return this;
    }
}
