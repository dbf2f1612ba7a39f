package dev.lorica.train;

import java.util.Locale;

/** When something is done that is done now and then; the names are those of {@code eval_strategy} and {@code save_strategy}. */
public enum IntervalStrategy {
    /** Never. */
    NO,
    /** Every so many optimizer steps. */
    STEPS,
    /** At the end of each epoch. */
    EPOCH;

    /** Whether it is time after this step. */
    boolean isDue(int step, int steps, boolean endOfEpoch) {
        return switch (this) {
            case NO -> false;
            case STEPS -> step % steps == 0;
            case EPOCH -> endOfEpoch;
        };
    }

    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
