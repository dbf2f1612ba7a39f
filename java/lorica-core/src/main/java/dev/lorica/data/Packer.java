package dev.lorica.data;

import dev.lorica.Batch;
import java.util.AbstractList;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Objects;
import java.util.Random;

/**
 * Puts examples one after another into batches, without padding. A packed batch gives the same loss and gradients as
 * its examples one by one. The lists of batches are views: each batch is made when it is asked for.
 */
public final class Packer {
    private Packer() {}

    /** All of {@code examples} in one batch, labels already shifted: position t carries the id at t + 1. */
    public static Batch pack(List<Example> examples) {
        if (examples.isEmpty()) {
            throw new IllegalArgumentException("a batch needs at least one example");
        }
        int total = Math.toIntExact(examples.stream().mapToLong(Example::length).sum());
        int[] tokens = new int[total];
        int[] labels = new int[total];
        int[] lengths = new int[examples.size()];
        int at = 0;
        for (int i = 0; i < lengths.length; i++) {
            Example example = examples.get(i);
            int n = example.length();
            System.arraycopy(example.ids(), 0, tokens, at, n);
            for (int t = 0; t < n; t++) {
                labels[at + t] = t + 1 < n && example.trained()[t + 1] ? example.ids()[t + 1] : Batch.IGNORE;
            }
            lengths[i] = n;
            at += n;
        }
        return Batch.of(tokens, labels, lengths);
    }

    /** Batches per epoch. */
    public static int batchCount(TokenizedDataset data, int batchSize) {
        return inOrder(data, batchSize).size();
    }

    /**
     * The batches of one epoch: {@code batchSize} examples each, the last one with what is left, in an order drawn from
     * {@code seed + epoch}. The same seed and epoch give the same batches on every platform.
     */
    public static List<Batch> shuffled(TokenizedDataset data, int batchSize, long seed, int epoch) {
        return shuffled(data.examples(), batchSize, seed, epoch);
    }

    /** The batches of one pass in the order of the data, {@code batchSize} examples each. */
    public static List<Batch> inOrder(TokenizedDataset data, int batchSize) {
        return inGroups(data.examples(), batchSize);
    }

    static List<Batch> shuffled(List<Example> examples, int batchSize, long seed, int epoch) {
        List<Example> order = new ArrayList<>(examples);
        Collections.shuffle(order, new Random(seed + epoch));
        return inGroups(order, batchSize);
    }

    static List<Batch> inGroups(List<Example> examples, int batchSize) {
        if (batchSize < 1) {
            throw new IllegalArgumentException("a batch size of " + batchSize + ": at least 1 is needed");
        }
        int count = (examples.size() + batchSize - 1) / batchSize;
        return new AbstractList<>() {
            @Override
            public Batch get(int index) {
                int from = Objects.checkIndex(index, count) * batchSize;
                return pack(examples.subList(from, Math.min(from + batchSize, examples.size())));
            }

            @Override
            public int size() {
                return count;
            }
        };
    }
}
