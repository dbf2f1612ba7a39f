package dev.lorica.train;

/**
 * Sums over some steps.
 *
 * @param lossSum of the losses
 * @param trained positions that are trained on
 * @param tokens  tokens processed
 * @param seconds time taken
 * @param units   what the loss is the mean over; 0 in checkpoints of versions that knew of plain fine-tuning alone: {@code trained}
 * @param metrics what the objective wants to be logged; {@code null}: nothing
 */
record Sums(double lossSum, long trained, long tokens, double seconds, double units, Metrics metrics) {
    static final Sums NONE = new Sums(0, 0, 0, 0, 0, Metrics.NONE);

    Sums {
        units = units == 0 ? trained : units;
        metrics = metrics == null ? Metrics.NONE : metrics;
    }

    static Sums of(GradientSums step, double seconds) {
        return new Sums(step.lossSum(), step.trained(), step.tokens(), seconds, step.units(), step.metrics());
    }

    Sums plus(Sums other) {
        return new Sums(
                lossSum + other.lossSum,
                trained + other.trained,
                tokens + other.tokens,
                seconds + other.seconds,
                units + other.units,
                metrics.plus(other.metrics));
    }

    double meanLoss() {
        return units == 0 ? Double.NaN : lossSum / units;
    }
}
