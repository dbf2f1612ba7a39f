package dev.lorica.train;

import dev.lorica.exceptions.InvalidArgumentException;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;

/** Checks of settings. */
final class Settings {
    private Settings() {}

    static double finite(String name, double value) {
        if (!Double.isFinite(value)) {
            throw new InvalidArgumentException(name + " is " + value + "; it must be a number");
        }
        return value;
    }

    /** As it is written: of a constant its name in lower case, of a number no more digits than there are. */
    static String word(Object value) {
        return value instanceof Enum<?> constant
                ? constant.name().toLowerCase(Locale.ROOT)
                : String.valueOf(value).replaceFirst("\\.0$", "");
    }

    /** The constant of this name. */
    static Enum<?> named(Class<? extends Enum<?>> type, String what, String name) {
        Map<String, Enum<?>> all = new LinkedHashMap<>();
        for (Enum<?> value : type.getEnumConstants()) {
            all.put(word(value), value);
        }
        Enum<?> found = all.get(name.toLowerCase(Locale.ROOT).replace('-', '_'));
        if (found == null) {
            throw new InvalidArgumentException(
                    what + " is \"" + name + "\"; there are " + String.join(", ", all.keySet()));
        }
        return found;
    }
}
