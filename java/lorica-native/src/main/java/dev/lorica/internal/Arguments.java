package dev.lorica.internal;

import dev.lorica.exceptions.InvalidArgumentException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Looks at what callers give. What is wrong is always said in the same way: which argument, what it is, what it must be. */
public final class Arguments {
    private Arguments() {}

    /**
     * Itself.
     *
     * @throws InvalidArgumentException if it is {@code null}
     */
    public static <T> T given(T value, String name) {
        if (value == null) {
            throw new InvalidArgumentException(name + " is null");
        }
        return value;
    }

    /** @throws InvalidArgumentException unless {@code good} */
    public static void check(boolean good, String name, Object value, String meant) {
        if (!good) {
            throw new InvalidArgumentException(name + " is " + value + "; it must be " + meant);
        }
    }

    /** A copy that nobody changes, without {@code null}s in it. */
    public static <T> List<T> all(Collection<? extends T> values, String name) {
        List<T> all = new ArrayList<>(given(values, name));
        for (T value : all) {
            element(value, name);
        }
        return Collections.unmodifiableList(all);
    }

    /** The same for an array. */
    @SafeVarargs
    public static <T> List<T> all(String name, T... values) {
        return all(Arrays.asList(given(values, name)), name);
    }

    /** A copy that nobody changes, in the same order, without {@code null}s in it. */
    public static <K, V> Map<K, V> all(Map<? extends K, ? extends V> values, String name) {
        Map<K, V> all = new LinkedHashMap<>(given(values, name));
        all.forEach((key, value) -> {
            element(key, name);
            element(value, name);
        });
        return Collections.unmodifiableMap(all);
    }

    private static void element(Object value, String name) {
        if (value == null) {
            throw new InvalidArgumentException(name + " has a null in it");
        }
    }

    /** A place in something of a size. */
    public static int index(int index, int size, String name) {
        if (index < 0 || index >= size) {
            throw new InvalidArgumentException(name + " is " + index + "; "
                    + (size == 0 ? "there is nothing" : "it must be from 0 to " + (size - 1)));
        }
        return index;
    }

    /** A whole number from {@code least} on. */
    public static int atLeast(int least, int value, String name) {
        check(value >= least, name, value, "at least " + least);
        return value;
    }
}
