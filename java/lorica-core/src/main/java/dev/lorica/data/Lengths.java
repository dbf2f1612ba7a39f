package dev.lorica.data;

import java.util.Arrays;

/** How many examples have how many tokens. */
public final class Lengths {
    /** Longer ones are counted as so long; what is too long to be trained on need not be told apart. */
    private static final int MOST = 1 << 20;

    private long[] counts = new long[1 << 10];
    private long total;
    private int longest;

    Lengths() {}

    void add(int length) {
        int at = Math.min(length, MOST);
        if (at >= counts.length) {
            counts = Arrays.copyOf(counts, Math.min(MOST + 1, Math.max(at + 1, 2 * counts.length)));
        }
        counts[at]++;
        total++;
        longest = Math.max(longest, length);
    }

    void add(Lengths other) {
        for (int length = 0; length < other.counts.length; length++) {
            for (long i = 0; i < other.counts[length]; i++) {
                add(length);
            }
        }
    }

    /** {@return examples counted} */
    public long total() {
        return total;
    }

    /** {@return the tokens of the longest example} */
    public int longest() {
        return longest;
    }

    /**
     * {@return the length that {@code share} of the examples do not exceed; 0.5: the median}
     *
     * @param share 0 to 1
     */
    public int quantile(double share) {
        long wanted = Math.max(1, (long) Math.ceil(share * total));
        long seen = 0;
        for (int length = 0; length < counts.length; length++) {
            seen += counts[length];
            if (seen >= wanted) {
                return length;
            }
        }
        return longest;
    }

    /**
     * {@return the number of examples with at least {@code from} and fewer than {@code to} tokens}
     *
     * @param from tokens
     * @param to   tokens
     */
    public long between(int from, int to) {
        long count = 0;
        for (int length = Math.max(0, from); length < Math.min(to, counts.length); length++) {
            count += counts[length];
        }
        return count;
    }
}
