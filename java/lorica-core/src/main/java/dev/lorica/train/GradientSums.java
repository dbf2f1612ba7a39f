package dev.lorica.train;

import dev.lorica.internal.Arguments;
import java.io.Serializable;

/**
 * What the micro-batches of one optimizer step add up to, their gradients apart.
 *
 * @param lossSum the sum of losses
 * @param units   what it and the gradients are divided by: the positions that are trained on in plain fine-tuning, so that every
 *                token counts alike; of other objectives what they count, as a rule examples
 * @param trained positions that are trained on
 * @param tokens  tokens processed
 * @param metrics what the objective wants to be logged
 */
public record GradientSums(double lossSum, double units, long trained, long tokens, Metrics metrics)
        implements Serializable {
    /**
     * Checks that there are metrics.
     *
     * @throws dev.lorica.exceptions.InvalidArgumentException if they are {@code null}
     */
    public GradientSums {
        Arguments.given(metrics, "metrics");
    }

    static final GradientSums NONE = new GradientSums(0, 0, 0, 0, Metrics.NONE);

    /**
     * {@return the sums of these micro-batches and of {@code other}, which stand behind them}
     *
     * @param other the sums of the micro-batches behind
     */
    public GradientSums plus(GradientSums other) {
        Arguments.given(other, "other");
        return new GradientSums(
                lossSum + other.lossSum,
                units + other.units,
                trained + other.trained,
                tokens + other.tokens,
                metrics.plus(other.metrics));
    }

    /** By which the sums of gradients are multiplied. */
    double scale() {
        return 1.0 / units;
    }
}
