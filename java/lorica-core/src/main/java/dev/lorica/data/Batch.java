package dev.lorica.data;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.io.Serializable;
import java.util.List;

/**
 * A packed micro-batch: sequences one after another without padding. Attention never crosses from one to the next.
 *
 * <p>The arrays are not copied; whoever makes a batch gives them away.
 *
 * @param tokens          [T] token ids
 * @param labels          [T] what position t is to predict: the id that follows it, already shifted, or {@link #IGNORE}. The last
 *                        position of a sequence therefore has {@link #IGNORE}.
 * @param positions       [T] position within the sequence, for RoPE
 * @param sequenceLengths tokens of each sequence, each at least 1; their sum is T
 * @param notes           what an objective wants to know beside
 */
public record Batch(int[] tokens, int[] labels, int[] positions, int[] sequenceLengths, Notes notes)
        implements Serializable {

    /**
     * What an objective knows of a batch beside its tokens.
     *
     * @param perExample sequences of an example: 2 of a pair, the better one first
     * @param values     [S] the number of each sequence, such as 1 for a good answer; {@code null}: there are none
     * @param reference  [T] log p of each label by the model as it was before; {@code null}: not known yet
     * @param prompt     [T] whether a position with a label belongs to the prompt; {@code null}: none does
     * @param old        [T] log p of each label by the model that drew the answers; {@code null}: that is the model as it is
     * @param asked      of each sequence, where these are prompts that wait for answers, what it was made from; {@code null}: they
     *                   are none
     * @param weights    [T] how much the loss of each label counts; {@code null}: all count alike
     * @param candidates what a teacher says; {@code null}: there is none
     */
    public record Notes(
            int perExample,
            float[] values,
            float[] reference,
            boolean[] prompt,
            float[] old,
            List<DataRecord> asked,
            float[] weights,
            Candidates candidates)
            implements Serializable {
        static final Notes NONE = new Notes(1, null, null, null);

        /**
         * Without prompts that wait for answers.
         *
         * @param perExample as {@link #perExample()}
         * @param values     as {@link #values()}
         * @param reference  as {@link #reference()}
         * @param prompt     as {@link #prompt()}
         */
        public Notes(int perExample, float[] values, float[] reference, boolean[] prompt) {
            this(perExample, values, reference, prompt, null, null, null, null);
        }

        /**
         * {@return the same with what the model said before}
         *
         * @param logProbs [T] log p of each label
         */
        public Notes withReference(float[] logProbs) {
            return new Notes(perExample, values, logProbs, prompt, old, asked, weights, candidates);
        }

        /**
         * {@return the same with what the model said that drew the answers}
         *
         * @param logProbs [T] log p of each label
         */
        public Notes withOld(float[] logProbs) {
            return new Notes(perExample, values, reference, prompt, logProbs, asked, weights, candidates);
        }

        /**
         * {@return the same with how much the loss of each label counts}
         *
         * @param weights [T] of each label, more than 0
         */
        public Notes withWeights(float[] weights) {
            return new Notes(perExample, values, reference, prompt, old, asked, weights, candidates);
        }

        /**
         * {@return the same with what a teacher says}
         *
         * @param candidates of each position with a label
         */
        public Notes withCandidates(Candidates candidates) {
            return new Notes(perExample, values, reference, prompt, old, asked, weights, candidates);
        }
    }

    /**
     * What a teacher says of several tokens at each of the L positions that have a label, in their order.
     *
     * @param count       K, tokens of each position
     * @param ids         [L, K], ascending within a position
     * @param logProbs    [L, K] log p by the teacher
     * @param temperature by which logits, the model's too, are divided
     * @param whole       whether they are the whole vocabulary, so that there are no others beside them
     */
    public record Candidates(int count, int[] ids, float[] logProbs, double temperature, boolean whole)
            implements Serializable {
        /**
         * Checks the lengths.
         *
         * @throws InvalidArgumentException if the arrays do not go together
         */
        public Candidates {
            Arguments.given(ids, "ids");
            Arguments.given(logProbs, "logProbs");
            Arguments.atLeast(1, count, "count");
            if (ids.length != logProbs.length || ids.length % count != 0) {
                throw new InvalidArgumentException("there are " + ids.length + " candidates and " + logProbs.length
                        + " log-probabilities, where each position has " + count);
            }
        }
    }

    /** Label of a position that is not trained on. */
    public static final int IGNORE = -100;

    /**
     * Checks the lengths.
     *
     * @throws InvalidArgumentException if the arrays do not go together
     */
    public Batch {
        Arguments.given(tokens, "tokens");
        Arguments.given(labels, "labels");
        Arguments.given(positions, "positions");
        Arguments.given(sequenceLengths, "sequenceLengths");
        notes = notes == null ? Notes.NONE : notes;
        if (labels.length != tokens.length || positions.length != tokens.length) {
            throw new InvalidArgumentException("tokens, labels and positions must be equally long, not " + tokens.length
                    + ", " + labels.length + " and " + positions.length);
        }
        long sum = 0;
        for (int length : sequenceLengths) {
            if (length < 1) {
                throw new InvalidArgumentException("a sequence cannot have " + length + " tokens");
            }
            sum += length;
        }
        if (sum != tokens.length) {
            throw new InvalidArgumentException(
                    "sequence lengths add up to " + sum + ", but there are " + tokens.length + " tokens");
        }
    }

    /**
     * With nothing beside the tokens and labels.
     *
     * @param tokens          as {@link #tokens()}
     * @param labels          as {@link #labels()}
     * @param positions       as {@link #positions()}
     * @param sequenceLengths as {@link #sequenceLengths()}
     */
    public Batch(int[] tokens, int[] labels, int[] positions, int[] sequenceLengths) {
        this(tokens, labels, positions, sequenceLengths, null);
    }

    /**
     * {@return the same, of which an objective knows more}
     *
     * @param notes what it knows
     */
    public Batch with(Notes notes) {
        return new Batch(tokens, labels, positions, sequenceLengths, notes);
    }

    /**
     * {@return a batch with positions 0, 1, 2, … within each sequence}
     *
     * @param tokens          [T] token ids
     * @param labels          [T] the id that follows each, or {@link #IGNORE}
     * @param sequenceLengths tokens of each sequence; their sum is T
     */
    public static Batch of(int[] tokens, int[] labels, int... sequenceLengths) {
        Arguments.given(tokens, "tokens");
        Arguments.given(labels, "labels");
        Arguments.given(sequenceLengths, "sequenceLengths");
        int[] positions = new int[tokens.length];
        int t = 0;
        for (int length : sequenceLengths) {
            for (int i = 0; i < length && t < positions.length; i++) {
                positions[t++] = i;
            }
        }
        return new Batch(tokens, labels, positions, sequenceLengths);
    }

    /** {@return T, the tokens of all sequences} */
    public int tokenCount() {
        return tokens.length;
    }

    /** {@return the number of sequences} */
    public int sequenceCount() {
        return sequenceLengths.length;
    }

    /** {@return the tokens of the longest sequence} */
    public int longestSequence() {
        int longest = 0;
        for (int length : sequenceLengths) {
            longest = Math.max(longest, length);
        }
        return longest;
    }

    /** {@return positions that are trained on} */
    public int trainedCount() {
        int count = 0;
        for (int label : labels) {
            if (label != IGNORE) {
                count++;
            }
        }
        return count;
    }
}
