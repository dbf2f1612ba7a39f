package dev.lorica.eval;

/**
 * How well generated answers agree with the ones expected.
 *
 * @param exactMatch share of answers that are the one expected
 * @param f1         mean F1 over the words
 * @param examples   how many were generated
 * @param seconds    time taken
 */
public record AnswerEvaluation(double exactMatch, double f1, int examples, double seconds) {}
