package dev.lorica.train;

import dev.lorica.exceptions.InvalidArgumentException;
import java.util.Locale;

/** How the learning rate goes on after warm-up; the names are those of {@code lr_scheduler_type}. */
public enum SchedulerType {
    /** Down to 0 in a straight line. */
    LINEAR,
    /** Down to {@link TrainingConfig#minLearningRate} along half a cosine. */
    COSINE,
    /** Down to {@link TrainingConfig#minLearningRate} as what remains, to the power of {@link TrainingConfig#schedulerPower}. */
    POLYNOMIAL,
    /** As it is. */
    CONSTANT;

    /**
     * {@code "linear"}, {@code "cosine"}, {@code "polynomial"} or {@code "constant"}; also {@code "constant_with_warmup"} and
     * {@code "cosine_with_min_lr"}, which are the same here.
     */
    public static SchedulerType of(String name) {
        return switch (name.toLowerCase(Locale.ROOT)) {
            case "linear" -> LINEAR;
            case "cosine", "cosine_with_min_lr" -> COSINE;
            case "polynomial" -> POLYNOMIAL;
            case "constant", "constant_with_warmup" -> CONSTANT;
            default ->
                throw new InvalidArgumentException("unknown learning rate scheduler \"" + name
                        + "\": linear, cosine, polynomial and constant exist");
        };
    }

    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
