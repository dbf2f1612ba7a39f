package dev.lorica.train;

import dev.lorica.eval.Loss;

/**
 * What the micro-batches of one optimizer step add up to, their gradients apart.
 *
 * @param loss   the sum, and what it and the gradients are divided by: for now the positions that are trained on, so that every
 *               token counts alike
 * @param tokens tokens processed
 */
public record GradientSums(Loss loss, long tokens) {
    public static final GradientSums NONE = new GradientSums(new Loss(0, 0), 0);

    public GradientSums plus(GradientSums other) {
        return new GradientSums(loss.plus(other.loss), tokens + other.tokens);
    }

    /** By which the sums of gradients are multiplied. */
    public double scale() {
        return 1.0 / loss.trained();
    }
}
