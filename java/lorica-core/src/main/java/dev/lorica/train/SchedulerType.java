package dev.lorica.train;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.util.Locale;

/** How the learning rate goes on after warm-up; the names are those of {@code lr_scheduler_type}. */
public enum SchedulerType {
    /** Down to 0 in a straight line. */
    LINEAR,
    /** Down to {@link TrainingConfig#minLearningRate} along half a cosine. */
    COSINE,
    /** Down to {@link TrainingConfig#minLearningRate} as what remains, to the power of {@link TrainingConfig#schedulerPower}. */
    POLYNOMIAL,
    /** Down to 0 along half a cosine, {@link TrainingConfig#schedulerCycles} times from the peak. */
    COSINE_WITH_RESTARTS,
    /** As one over the root of the steps since the warm-up began, measured in {@link TrainingConfig#timescale}. */
    INVERSE_SQRT,
    /**
     * As it is, and in the last {@link TrainingConfig#decaySteps} down to {@link TrainingConfig#minLearningRate} along half a cosine;
     * warm-up rises from there.
     */
    WARMUP_STABLE_DECAY,
    /** As it is. */
    CONSTANT;

    /**
     * {@return the type of one of these names in lower case; also {@code "constant_with_warmup"} and
     * {@code "cosine_with_min_lr"}, which are the same here}
     *
     * @param name the name
     * @throws InvalidArgumentException naming those that there are
     */
    public static SchedulerType of(String name) {
        Arguments.given(name, "name");
        return switch (name.toLowerCase(Locale.ROOT)) {
            case "linear" -> LINEAR;
            case "cosine", "cosine_with_min_lr" -> COSINE;
            case "polynomial" -> POLYNOMIAL;
            case "cosine_with_restarts" -> COSINE_WITH_RESTARTS;
            case "inverse_sqrt" -> INVERSE_SQRT;
            case "warmup_stable_decay" -> WARMUP_STABLE_DECAY;
            case "constant", "constant_with_warmup" -> CONSTANT;
            default ->
                throw new InvalidArgumentException("unknown learning rate scheduler \"" + name
                        + "\": linear, cosine, cosine_with_restarts, polynomial, inverse_sqrt,"
                        + " warmup_stable_decay and constant exist");
        };
    }

    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
