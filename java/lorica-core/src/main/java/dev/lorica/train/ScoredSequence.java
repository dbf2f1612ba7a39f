package dev.lorica.train;

import dev.lorica.data.Batch;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;

/**
 * A sequence as an objective sees it: what is learned of it, token by token, with log p by the model and, where the objective asks
 * for it, by the reference. The prompt is not part of it.
 */
public final class ScoredSequence {
    private final int[] places;
    private final int[] promptPlaces;
    private final int[] tokens;
    private final float[] logProbs;
    private final float[] reference;
    private final float[] old;
    private final float[] weights;
    private final Batch.Candidates candidates;
    private final int[] rows;
    private final float value;

    /**
     * @param places       of what is learned, in the batch
     * @param promptPlaces of what is scored beside it
     * @param tokens       [T] what each position predicts
     * @param logProbs     [T], or those of the candidates
     * @param reference    [T]; {@code null}: not asked for
     * @param old          [T]; {@code null}: {@code logProbs}
     * @param weights      [T]; {@code null}: all are 1
     * @param candidates   of a teacher; {@code null}: there is none
     * @param rows         [T] which position of the candidates each is
     */
    ScoredSequence(
            int[] places,
            int[] promptPlaces,
            int[] tokens,
            float[] logProbs,
            float[] reference,
            float[] old,
            float[] weights,
            Batch.Candidates candidates,
            int[] rows,
            float value) {
        this.places = places;
        this.promptPlaces = promptPlaces;
        this.tokens = tokens;
        this.logProbs = logProbs;
        this.reference = reference;
        this.old = old == null ? logProbs : old;
        this.weights = weights;
        this.candidates = candidates;
        this.rows = rows;
        this.value = value;
    }

    /** {@return tokens that are learned} */
    public int length() {
        return places.length;
    }

    /**
     * {@return the id of token {@code i}}
     *
     * @param i of the tokens that are learned, from 0
     */
    public int token(int i) {
        return tokens[place(i)];
    }

    /**
     * {@return log p of token {@code i}}
     *
     * @param i of the tokens that are learned, from 0
     */
    public double logProb(int i) {
        return own()[place(i)];
    }

    /** {@return of all tokens together: their sum} */
    public double logProb() {
        return sum(own(), places);
    }

    /**
     * {@return how much the loss of a token counts: 1, unless the data say something else}
     *
     * @param i of the tokens that are learned, from 0
     */
    public double weight(int i) {
        return weights == null ? 1 : weights[place(i)];
    }

    /** {@return the number of tokens at each place of which a teacher speaks} */
    public int candidates() {
        return known().count();
    }

    /** {@return whether these are the whole vocabulary} */
    public boolean candidatesAreAll() {
        return known().whole();
    }

    /**
     * {@return the id of a candidate}
     *
     * @param i of the tokens that are learned, from 0
     * @param k of the candidates at its place, from 0
     */
    public int candidateToken(int i, int k) {
        return known().ids()[candidate(i, k)];
    }

    /**
     * {@return log p of a candidate by the model; both models' logits are divided by the teacher's temperature}
     *
     * @param i of the tokens that are learned, from 0
     * @param k of the candidates at its place, from 0
     */
    public double candidateLogProb(int i, int k) {
        int at = candidate(i, k);
        return logProbs[at];
    }

    /**
     * {@return log p of a candidate by the teacher}
     *
     * @param i of the tokens that are learned, from 0
     * @param k of the candidates at its place, from 0
     */
    public double teacherLogProb(int i, int k) {
        return known().logProbs()[candidate(i, k)];
    }

    /** Its place among all candidates. */
    int candidate(int i, int k) {
        int count = known().count();
        return rows[place(i)] * count + Arguments.index(k, count, "k");
    }

    private Batch.Candidates known() {
        if (candidates == null) {
            throw new InvalidArgumentException("there is no teacher, and so nothing that it says of candidates");
        }
        return candidates;
    }

    private float[] own() {
        if (candidates != null) {
            throw new InvalidArgumentException("where there is a teacher, log p is that of its candidates");
        }
        return logProbs;
    }

    /** {@return their mean; 0 where none is learned} */
    public double meanLogProb() {
        return logProb() / length();
    }

    /** log p of token {@code i} by the model that drew it. */
    double oldLogProb(int i) {
        return old[place(i)];
    }

    /**
     * {@return log p of token {@code i} by the reference}
     *
     * @param i of the tokens that are learned, from 0
     */
    public double referenceLogProb(int i) {
        return reference()[place(i)];
    }

    /** {@return log p of all tokens together by the reference: their sum} */
    public double referenceLogProb() {
        return sum(reference(), places);
    }

    /** {@return how much likelier the model has made it than the reference does} */
    public double logRatio() {
        return logProb() - referenceLogProb();
    }

    /** {@return the number that the record has for it, such as 1 for a good answer and 0 for another; 1 where it has none} */
    public double value() {
        return value;
    }

    /** {@return tokens of the prompt that are scored} */
    public int promptLength() {
        return promptPlaces.length;
    }

    /** {@return log p of the prompt, except for its first token} */
    public double promptLogProb() {
        return sum(logProbs, promptPlaces);
    }

    int place(int i) {
        return places[Arguments.index(i, places.length, "i")];
    }

    int promptPlace(int i) {
        return promptPlaces[i];
    }

    private float[] reference() {
        if (reference == null) {
            throw new IllegalStateException("the objective does not say that it uses a reference");
        }
        return reference;
    }

    private static double sum(float[] values, int[] places) {
        double sum = 0;
        for (int place : places) {
            sum += values[place];
        }
        return sum;
    }
}
