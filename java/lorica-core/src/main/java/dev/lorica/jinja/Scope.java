package dev.lorica.jinja;

import dev.lorica.jinja.JinjaTemplate.Span;
import java.time.LocalDate;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Variables, with those of the scopes around it. A loop, a macro and a {@code with} have a scope of their own: what is set in
 * it is gone behind it.
 */
final class Scope {
    /** Far above what any template for a conversation of a thousand turns needs, and reached in about a second. */
    private static final long MAX_STEPS = 10_000_000;

    private static final int MAX_LENGTH = 64 << 20;

    /** What belongs to one rendering. */
    static final class Run {
        final LocalDate date;
        StringBuilder main;
        List<Span> generations;
        private long steps;

        Run(LocalDate date) {
            this.date = date;
        }

        void step() {
            if (++steps > MAX_STEPS) {
                throw new JinjaException("the template takes too many steps");
            }
        }
    }

    final Run run;
    private final Scope outer;
    private final Map<String, Object> variables;

    Scope(Run run, Map<String, Object> variables) {
        this.run = run;
        this.outer = null;
        this.variables = variables;
    }

    private Scope(Scope outer) {
        this.run = outer.run;
        this.outer = outer;
        this.variables = new HashMap<>();
    }

    Scope inner() {
        return new Scope(this);
    }

    Object get(String name) {
        for (Scope scope = this; scope != null; scope = scope.outer) {
            Object value = scope.variables.get(name);
            if (value != null || scope.variables.containsKey(name)) {
                return value;
            }
        }
        return new Undefined(name);
    }

    void set(String name, Object value) {
        variables.put(name, value);
    }

    static void append(StringBuilder out, String text) {
        out.append(text);
        checkLength(out.length());
    }

    static void checkLength(long length) {
        if (length > MAX_LENGTH) {
            throw new JinjaException("the template produces more than " + (MAX_LENGTH >> 20) + " million characters");
        }
    }
}
