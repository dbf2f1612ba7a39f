package dev.lorica.data;

import dev.lorica.internal.Arguments;
import java.io.Serializable;

/**
 * How large batches are, or can be.
 *
 * @param tokens         of all sequences
 * @param sequences      of one batch
 * @param sequenceLength tokens of the longest sequence
 */
public record BatchShape(int tokens, int sequences, int sequenceLength) implements Serializable {
    /**
     * {@return how large a batch is}
     *
     * @param batch the batch
     */
    public static BatchShape of(Batch batch) {
        Arguments.given(batch, "batch");
        return new BatchShape(batch.tokenCount(), batch.sequenceCount(), batch.longestSequence());
    }

    /**
     * {@return a shape into which each of the batches fits}
     *
     * @param batches the batches
     */
    public static BatchShape of(Packer.Batches batches) {
        Arguments.given(batches, "batches");
        BatchShape shape = new BatchShape(1, 1, 1);
        for (int i = 0; i < batches.size(); i++) {
            shape = shape.max(
                    new BatchShape(Math.toIntExact(batches.tokens(i)), batches.sequences(i), batches.longest(i)));
        }
        return shape;
    }

    /**
     * {@return the smallest shape into which both fit}
     *
     * @param other another shape
     */
    public BatchShape max(BatchShape other) {
        Arguments.given(other, "other");
        return new BatchShape(
                Math.max(tokens, other.tokens),
                Math.max(sequences, other.sequences),
                Math.max(sequenceLength, other.sequenceLength));
    }

    /**
     * {@return whether it fits into {@code other}}
     *
     * @param other another shape
     */
    public boolean fits(BatchShape other) {
        Arguments.given(other, "other");
        return max(other).equals(other);
    }
}
