package dev.lorica.data;

import dev.lorica.internal.Arguments;
import java.io.Serializable;

/**
 * How large batches are, or can be.
 *
 * @param tokens         of all sequences
 * @param sequences      of one batch
 * @param sequenceLength tokens of the longest sequence
 * @param candidates     of each position that is learned, of which a {@linkplain TeacherLogProbs teacher} speaks; 0: there is none
 */
public record BatchShape(int tokens, int sequences, int sequenceLength, int candidates) implements Serializable {
    /**
     * Without a teacher.
     *
     * @param tokens         as {@link #tokens()}
     * @param sequences      as {@link #sequences()}
     * @param sequenceLength as {@link #sequenceLength()}
     */
    public BatchShape(int tokens, int sequences, int sequenceLength) {
        this(tokens, sequences, sequenceLength, 0);
    }

    /**
     * {@return how large a batch is}
     *
     * @param batch the batch
     */
    public static BatchShape of(Batch batch) {
        Arguments.given(batch, "batch");
        Batch.Candidates candidates = batch.notes().candidates();
        return new BatchShape(
                batch.tokenCount(),
                batch.sequenceCount(),
                batch.longestSequence(),
                candidates == null ? 0 : candidates.count());
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
            shape = shape.max(new BatchShape(
                    Math.toIntExact(batches.tokens(i)),
                    batches.sequences(i),
                    batches.longest(i),
                    batches.candidates()));
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
                Math.max(sequenceLength, other.sequenceLength),
                Math.max(candidates, other.candidates));
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
