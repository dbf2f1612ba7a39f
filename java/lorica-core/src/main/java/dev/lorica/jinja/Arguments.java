package dev.lorica.jinja;

import java.util.List;
import java.util.Map;

/** What a filter, test, function or method is given besides its subject, and the rendering that it belongs to. */
record Arguments(Run run, String of, List<Object> values, Map<String, Object> named) {

    /** The argument at {@code index} or of this name; {@code otherwise} when neither is given. */
    Object get(int index, String name, Object otherwise) {
        return index >= 0 && index < values.size() ? values.get(index) : named.getOrDefault(name, otherwise);
    }

    Object require(int index, String name) {
        if (index >= values.size() && !named.containsKey(name)) {
            throw new JinjaException(of + " needs an argument: " + name);
        }
        return get(index, name, null);
    }

    /** {@code null}: not given, or None. */
    String text(int index, String name) {
        Object value = get(index, name, null);
        if (value != null && !(value instanceof String)) {
            throw new JinjaException(of + ": " + name + " must be a text, not " + Values.shown(run, value));
        }
        return (String) value;
    }

    String requireText(int index, String name) {
        String text = text(index, name);
        if (text == null) {
            throw new JinjaException(of + " needs a text: " + name);
        }
        return text;
    }

    int integer(int index, String name, int otherwise) {
        return (int) Math.max(
                Integer.MIN_VALUE, Math.min(Integer.MAX_VALUE, Values.toLong(run, get(index, name, (long) otherwise))));
    }

    boolean isTrue(int index, String name, boolean otherwise) {
        return Values.isTrue(get(index, name, otherwise));
    }

    /** What is left behind the first {@code n}. */
    Arguments behind(int n, String of) {
        return new Arguments(run, of, values.subList(Math.min(n, values.size()), values.size()), named);
    }
}
