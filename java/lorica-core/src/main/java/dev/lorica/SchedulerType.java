package dev.lorica;

import dev.lorica.exceptions.InvalidArgumentException;
import java.util.Locale;

/** How the learning rate goes on after warm-up; the names are those of {@code lr_scheduler_type}. */
public enum SchedulerType {
    /** Down to 0 in a straight line. */
    LINEAR,
    /** Down to 0 along half a cosine. */
    COSINE,
    /** As it is. */
    CONSTANT;

    /** {@code "linear"}, {@code "cosine"} or {@code "constant"}; also {@code "constant_with_warmup"}, which is the same here. */
    public static SchedulerType of(String name) {
        return switch (name.toLowerCase(Locale.ROOT)) {
            case "linear" -> LINEAR;
            case "cosine" -> COSINE;
            case "constant", "constant_with_warmup" -> CONSTANT;
            default -> throw new InvalidArgumentException(
                    "unknown learning rate scheduler \"" + name + "\": linear, cosine and constant exist");
        };
    }

    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
