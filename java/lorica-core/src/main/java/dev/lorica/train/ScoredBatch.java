package dev.lorica.train;

import dev.lorica.data.Batch;
import dev.lorica.internal.Arguments;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;

/** The sequences of a micro-batch, in its order; of pairs the better side comes first. */
public final class ScoredBatch {
    private final List<ScoredSequence> sequences;
    private final int perExample;
    private final double kl;

    /**
     * @param logProbs  [T] of each label; where there is a teacher, [L, K] of its candidates
     * @param reference [T]; {@code null}: not asked for
     * @param kl        {@link #kl()}
     */
    ScoredBatch(Batch batch, float[] logProbs, float[] reference, double kl) {
        this.kl = kl;
        this.perExample = batch.notes().perExample();
        boolean[] prompt = batch.notes().prompt();
        float[] values = batch.notes().values();
        int[] rows = batch.notes().candidates() == null ? null : rows(batch);
        List<ScoredSequence> all = new ArrayList<>(batch.sequenceCount());
        int at = 0;
        for (int s = 0; s < batch.sequenceCount(); s++) {
            int end = at + batch.sequenceLengths()[s];
            int[] learned = places(batch, prompt, false, at, end);
            int[] asked = prompt == null ? new int[0] : places(batch, prompt, true, at, end);
            all.add(new ScoredSequence(
                    learned,
                    asked,
                    batch.labels(),
                    logProbs,
                    reference,
                    batch.notes().old(),
                    batch.notes().weights(),
                    batch.notes().candidates(),
                    rows,
                    values == null ? 1 : values[s]));
            at = end;
        }
        sequences = List.copyOf(all);
    }

    /** [T] which of the positions with a label each is. */
    private static int[] rows(Batch batch) {
        int[] rows = new int[batch.tokenCount()];
        int next = 0;
        for (int t = 0; t < rows.length; t++) {
            rows[t] = batch.labels()[t] == Batch.IGNORE ? -1 : next++;
        }
        return rows;
    }

    private static int[] places(Batch batch, boolean[] prompt, boolean ofPrompt, int from, int to) {
        return IntStream.range(from, to)
                .filter(t -> batch.labels()[t] != Batch.IGNORE && (prompt != null && prompt[t]) == ofPrompt)
                .toArray();
    }

    /** {@return the sequences in their order, of pairs both sides one after the other} */
    public List<ScoredSequence> sequences() {
        return sequences;
    }

    /** {@return examples: pairs count once} */
    public int size() {
        return sequences.size() / perExample;
    }

    /**
     * {@return the better side of pair {@code i}}
     *
     * @param i of the pairs, from 0
     */
    public ScoredSequence chosen(int i) {
        return sequences.get(Arguments.index(i, size(), "i") * perExample);
    }

    /**
     * {@return the worse side of pair {@code i}}
     *
     * @param i of the pairs, from 0
     */
    public ScoredSequence rejected(int i) {
        Arguments.check(perExample == 2, "the batch", "no pairs", "one of pairs to have worse sides");
        return sequences.get(Arguments.index(i, size(), "i") * perExample + 1);
    }

    /**
     * {@return an estimate of how far the model is from the reference: the mean of log p − log p of the reference over prompts that are each
     * followed by the answer of the example before, not less than 0} Only for objectives that ask for it.
     */
    public double kl() {
        return kl;
    }
}
