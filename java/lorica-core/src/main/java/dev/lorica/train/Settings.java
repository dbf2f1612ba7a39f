package dev.lorica.train;

import dev.lorica.exceptions.InvalidArgumentException;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;

/** Checks of settings. */
final class Settings {
    private Settings() {}

    static double positive(String name, double value) {
        if (!(value > 0) || Double.isInfinite(value)) {
            throw new InvalidArgumentException(name + " is " + value + "; it must be more than 0");
        }
        return value;
    }

    static double notNegative(String name, double value) {
        if (!(value >= 0) || Double.isInfinite(value)) {
            throw new InvalidArgumentException(name + " is " + value + "; it must be 0 or more");
        }
        return value;
    }

    static double finite(String name, double value) {
        if (!Double.isFinite(value)) {
            throw new InvalidArgumentException(name + " is " + value + "; it must be a number");
        }
        return value;
    }

    static double share(String name, double value, double most) {
        if (!(value >= 0 && value < most)) {
            throw new InvalidArgumentException(name + " is " + value + "; it must be at least 0 and less than " + most);
        }
        return value;
    }

    static <E extends Enum<E>> E named(Class<E> type, String what, String name) {
        Map<String, E> all = new LinkedHashMap<>();
        for (E value : type.getEnumConstants()) {
            all.put(value.toString(), value);
        }
        E found = all.get(name.toLowerCase(Locale.ROOT).replace('-', '_'));
        if (found == null) {
            throw new InvalidArgumentException(
                    "no " + what + " is called \"" + name + "\"; there are " + String.join(", ", all.keySet()));
        }
        return found;
    }
}
