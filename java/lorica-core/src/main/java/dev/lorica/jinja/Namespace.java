package dev.lorica.jinja;

import java.util.LinkedHashMap;
import java.util.Map;

/** The one object that a template can change: {@code {% set ns.found = true %}}. */
final class Namespace {
    private final Map<String, Object> fields = new LinkedHashMap<>();

    Object get(String name) {
        return fields.containsKey(name) ? fields.get(name) : new Undefined("the namespace's " + name);
    }

    void set(String name, Object value) {
        fields.put(name, value);
    }
}
