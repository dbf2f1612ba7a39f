package dev.lorica.cli;

import java.util.Arrays;
import java.util.Locale;
import java.util.stream.Collectors;

/** Options that take one of a few words. */
final class Choices {
    private Choices() {}

    /** The constant that {@code word} names, in any case and with {@code -} for {@code _}. */
    static <E extends Enum<E>> E of(String option, String word, Class<E> type) {
        for (E constant : type.getEnumConstants()) {
            if (name(constant).equals(word.toLowerCase(Locale.ROOT).replace('_', '-'))) {
                return constant;
            }
        }
        String known = Arrays.stream(type.getEnumConstants()).map(Choices::name).collect(Collectors.joining(", "));
        throw new IllegalArgumentException(option + " cannot be \"" + word + "\"; it is one of " + known);
    }

    static String name(Enum<?> constant) {
        return constant.name().toLowerCase(Locale.ROOT).replace('_', '-');
    }
}
