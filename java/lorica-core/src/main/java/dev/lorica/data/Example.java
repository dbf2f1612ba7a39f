package dev.lorica.data;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.util.Arrays;

/**
 * One sequence of token ids, and which of them the model learns to say. The arrays have the same length; they are not
 * copied, so leave them alone.
 *
 * @param ids     the tokens, BOS and EOS included
 * @param trained whether the token at this place is learned, that is: predicted from those before it
 * @param weights how much the loss of each token that is learned counts, more than 0; {@code null}: all count alike
 */
public record Example(int[] ids, boolean[] trained, float[] weights) {
    /**
     * Checks the lengths.
     *
     * @throws InvalidArgumentException if there are not as many flags as tokens, or none
     */
    public Example {
        Arguments.given(ids, "ids");
        Arguments.given(trained, "trained");
        if (ids.length != trained.length) {
            throw new InvalidArgumentException(ids.length + " ids but " + trained.length + " flags");
        }
        if (weights != null && weights.length != ids.length) {
            throw new InvalidArgumentException(ids.length + " ids but " + weights.length + " weights");
        }
        if (ids.length == 0) {
            throw new InvalidArgumentException("an example has at least one token");
        }
    }

    /**
     * An example of which all that is learned counts alike.
     *
     * @param ids     as {@link #ids()}
     * @param trained as {@link #trained()}
     */
    public Example(int[] ids, boolean[] trained) {
        this(ids, trained, null);
    }

    /** {@return the number of tokens} */
    public int length() {
        return ids.length;
    }

    /** {@return tokens that contribute to the loss} The first of a sequence never does: nothing stands before it. */
    public int trainedTokens() {
        int n = 0;
        for (int i = 1; i < trained.length; i++) {
            n += trained[i] ? 1 : 0;
        }
        return n;
    }

    /** The first {@code length} tokens. */
    Example prefix(int length) {
        return new Example(
                Arrays.copyOf(ids, length),
                Arrays.copyOf(trained, length),
                weights == null ? null : Arrays.copyOf(weights, length));
    }

    /** All of it counts so much more, or less; of weight 0 nothing is learned. */
    Example weighted(float weight) {
        if (weight == 1) {
            return this;
        }
        float[] scaled = new float[ids.length];
        for (int i = 0; i < scaled.length; i++) {
            scaled[i] = weight * (weights == null ? 1 : weights[i]);
        }
        return new Example(ids, weight == 0 ? new boolean[ids.length] : trained, scaled);
    }
}
