package dev.lorica.train;

import dev.lorica.data.Batch;
import java.util.Arrays;

/** Prompts with answers that belong to others, from which KTO estimates how far the model is from the reference. */
final class Mismatched {
    private Mismatched() {}

    /**
     * Each prompt of a batch with the answer of the example before it, the first with that of the last.
     *
     * @param maxLength tokens that a sequence may have; what is longer is cut
     */
    static Batch of(Batch batch, int maxLength) {
        int n = batch.sequenceCount();
        int[] begins = new int[n + 1];
        int[] answers = new int[n];
        for (int s = 0; s < n; s++) {
            begins[s + 1] = begins[s] + batch.sequenceLengths()[s];
            int first = begins[s];
            while (first < begins[s + 1] - 1 && batch.labels()[first] == Batch.IGNORE) {
                first++;
            }
            answers[s] = first + 1;
        }
        int[] tokens = new int[batch.tokenCount()];
        int[] labels = new int[batch.tokenCount()];
        int[] lengths = new int[n];
        Arrays.fill(labels, Batch.IGNORE);
        int at = 0;
        for (int s = 0; s < n; s++) {
            int other = (s + n - 1) % n;
            int prompt = answers[s] - begins[s];
            int answer = begins[other + 1] - answers[other];
            int length = Math.min(prompt + answer, maxLength);
            for (int t = 0; t < length; t++) {
                tokens[at + t] = batch.tokens()[t < prompt ? begins[s] + t : answers[other] + t - prompt];
                if (t >= prompt) {
                    labels[at + t - 1] = tokens[at + t];
                }
            }
            lengths[s] = length;
            at += length;
        }
        return Batch.of(Arrays.copyOf(tokens, at), Arrays.copyOf(labels, at), lengths);
    }
}
