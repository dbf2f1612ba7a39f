package dev.lorica.train;

import dev.lorica.eval.Loss;

/**
 * Sums over some steps.
 *
 * @param lossSum of −log p over the positions that are trained on
 * @param trained how many these are
 * @param tokens  tokens processed
 * @param seconds time taken
 */
record Sums(double lossSum, long trained, long tokens, double seconds) {
    static final Sums NONE = new Sums(0, 0, 0, 0);

    static Sums of(GradientSums step, double seconds) {
        return new Sums(step.loss().sum(), step.loss().trained(), step.tokens(), seconds);
    }

    Sums plus(Sums other) {
        return new Sums(
                lossSum + other.lossSum, trained + other.trained, tokens + other.tokens, seconds + other.seconds);
    }

    double meanLoss() {
        return new Loss(lossSum, trained).mean();
    }
}
