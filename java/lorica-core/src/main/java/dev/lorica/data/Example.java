package dev.lorica.data;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.util.Arrays;

/**
 * One sequence of token ids, and which of them the model learns to say. Both arrays have the same length; they are not
 * copied, so leave them alone.
 *
 * @param ids     the tokens, BOS and EOS included
 * @param trained whether the token at this place is learned, that is: predicted from those before it
 */
public record Example(int[] ids, boolean[] trained) {
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
        if (ids.length == 0) {
            throw new InvalidArgumentException("an example has at least one token");
        }
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
        return new Example(Arrays.copyOf(ids, length), Arrays.copyOf(trained, length));
    }
}
