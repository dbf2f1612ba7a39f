package dev.lorica.data;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.util.AbstractList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;

/**
 * Puts examples one after another into batches, without padding. A packed batch gives the same loss and gradients as
 * its examples one by one. The lists of batches are views: each batch is made when it is asked for.
 */
public final class Packer {
    /** As many batches as Hugging Face's Trainer sorts at once. */
    static final int SORTED_TOGETHER = 50;

    private Packer() {}

    /**
     * {@return all examples in one batch, labels already shifted: position t carries the id at t + 1}
     *
     * @param examples one at least
     */
    public static Batch pack(List<Example> examples) {
        if (Arguments.all(examples, "examples").isEmpty()) {
            throw new InvalidArgumentException("examples are none; a batch needs at least one");
        }
        int total = Math.toIntExact(examples.stream().mapToLong(Example::length).sum());
        int[] tokens = new int[total];
        int[] labels = new int[total];
        int[] lengths = new int[examples.size()];
        float[] weights = examples.stream().anyMatch(example -> example.weights() != null) ? new float[total] : null;
        int at = 0;
        for (int i = 0; i < lengths.length; i++) {
            Example example = examples.get(i);
            int n = example.length();
            System.arraycopy(example.ids(), 0, tokens, at, n);
            for (int t = 0; t < n; t++) {
                boolean learned = t + 1 < n && example.trained()[t + 1];
                labels[at + t] = learned ? example.ids()[t + 1] : Batch.IGNORE;
                if (weights != null && learned) {
                    weights[at + t] = example.weights() == null ? 1 : example.weights()[t + 1];
                }
            }
            lengths[i] = n;
            at += n;
        }
        Batch batch = Batch.of(tokens, labels, lengths);
        return weights == null ? batch : batch.with(Batch.Notes.NONE.withWeights(weights));
    }

    /**
     * {@return the number of batches of an epoch}
     *
     * @param data      the examples
     * @param batchSize examples of a batch
     */
    public static int batchCount(TokenizedDataset data, int batchSize) {
        Arguments.given(data, "data");
        return inOrder(data, batchSize).size();
    }

    /**
     * {@return the batches of one epoch: {@code batchSize} examples each, the last one with what is left, in an order drawn from
     * {@code seed + epoch}} The same seed and epoch give the same batches on every platform.
     *
     * @param data      the examples
     * @param batchSize examples of a batch
     * @param seed      of the order
     * @param epoch     which, from 0
     */
    public static Batches shuffled(TokenizedDataset data, int batchSize, long seed, int epoch) {
        Arguments.given(data, "data");
        return new Batches(data, permutation(data.size(), seed + epoch), batchSize);
    }

    /**
     * {@return the same, but examples of about the same length come together: within each stretch of {@value #SORTED_TOGETHER} batches of
     * that order they are sorted by length, and which batch comes when is then drawn again}
     *
     * @param data      the examples
     * @param batchSize examples of a batch
     * @param seed      of the order
     * @param epoch     which, from 0
     */
    public static Batches groupedByLength(TokenizedDataset data, int batchSize, long seed, int epoch) {
        Arguments.given(data, "data");
        int[] order = permutation(data.size(), seed + epoch);
        Random random = new Random(seed + epoch);
        int whole = data.size() / Arguments.atLeast(1, batchSize, "batchSize") * batchSize;
        int stretch = (int) Math.min((long) SORTED_TOGETHER * batchSize, Math.max(1, whole));
        for (int from = 0; from < whole; from += stretch) {
            int to = Math.min(from + stretch, whole);
            int[] sorted = IntStream.range(from, to)
                    .mapToObj(i -> order[i])
                    .sorted(Comparator.comparing(data::length))
                    .mapToInt(Integer::intValue)
                    .toArray();
            int[] places = permutation(sorted.length / batchSize, random.nextLong());
            for (int batch = 0; batch < places.length; batch++) {
                System.arraycopy(sorted, places[batch] * batchSize, order, from + batch * batchSize, batchSize);
            }
        }
        return new Batches(data, order, batchSize);
    }

    /**
     * {@return the batches of one pass in the order of the data, {@code batchSize} examples each}
     *
     * @param data      the examples
     * @param batchSize examples of a batch
     */
    public static Batches inOrder(TokenizedDataset data, int batchSize) {
        Arguments.given(data, "data");
        return new Batches(data, null, batchSize);
    }

    /** The numbers from 0 to {@code n} − 1 in the order in which {@link java.util.Collections#shuffle} puts them. */
    static int[] permutation(int n, long seed) {
        int[] order = new int[n];
        Arrays.setAll(order, i -> i);
        Random random = new Random(seed);
        for (int i = n; i > 1; i--) {
            int other = random.nextInt(i);
            int last = order[i - 1];
            order[i - 1] = order[other];
            order[other] = last;
        }
        return order;
    }

    /** Batches that are made when they are asked for; how large they are is known before. */
    public static final class Batches extends AbstractList<Batch> {
        private final TokenizedDataset data;
        private final int[] order;
        private final int batchSize;

        /** @param order numbers of examples; {@code null}: all in their order */
        private Batches(TokenizedDataset data, int[] order, int batchSize) {
            this.data = Arguments.given(data, "data");
            this.order = order;
            this.batchSize = Arguments.atLeast(1, batchSize, "batchSize");
        }

        @Override
        public int size() {
            return (int) ((data.size() + (long) batchSize - 1) / batchSize);
        }

        @Override
        public Batch get(int index) {
            return data.batch(numbers(index));
        }

        /**
         * {@return the tokens of a batch, of all sequences}
         *
         * @param index of the batch, from 0
         */
        public long tokens(int index) {
            long tokens = 0;
            for (int i = from(index); i < to(index); i++) {
                tokens += data.length(example(i));
            }
            return tokens;
        }

        /**
         * {@return the tokens of the longest example of a batch}
         *
         * @param index of the batch, from 0
         */
        public int longest(int index) {
            int longest = 0;
            for (int i = from(index); i < to(index); i++) {
                longest = Math.max(longest, data.longestSequence(example(i)));
            }
            return longest;
        }

        /**
         * {@return which examples of the data a batch has, counted from 0}
         *
         * @param index of the batch, from 0
         */
        public int[] numbers(int index) {
            return IntStream.range(from(index), to(index)).map(this::example).toArray();
        }

        /**
         * {@return the number of examples of a batch}
         *
         * @param index of the batch, from 0
         */
        public int examples(int index) {
            return to(index) - from(index);
        }

        /**
         * {@return the number of sequences of a batch, which are more than its examples where these are pairs}
         *
         * @param index of the batch, from 0
         */
        public int sequences(int index) {
            return examples(index) * data.sequencesPerExample();
        }

        /** Tokens of a position of which a teacher speaks; 0: there is none. */
        int candidates() {
            return data.teacher() == null ? 0 : data.teacher().topK();
        }

        private int from(int index) {
            return (int) Math.min((long) Arguments.index(index, size(), "index") * batchSize, data.size());
        }

        private int to(int index) {
            return (int) Math.min((long) from(index) + batchSize, data.size());
        }

        private int example(int position) {
            return order == null ? position : order[position];
        }
    }
}
