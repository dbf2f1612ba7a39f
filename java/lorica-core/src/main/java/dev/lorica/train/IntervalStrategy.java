package dev.lorica.train;

import java.util.Locale;

/** When something is done that is done now and then; the names are those of {@code eval_strategy} and {@code save_strategy}. */
public enum IntervalStrategy {
    NO,
    /** Every so many optimizer steps. */
    STEPS,
    /** At the end of each epoch. */
    EPOCH;

    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
