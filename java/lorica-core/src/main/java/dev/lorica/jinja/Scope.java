package dev.lorica.jinja;

import java.util.HashMap;
import java.util.Map;

/**
 * Variables, with those of the scopes around it. A loop, a macro and a {@code with} have a scope of their own: what is set in
 * it is gone behind it.
 */
final class Scope {
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
        run.step();
        return new Scope(this);
    }

    Object get(String name) {
        for (Scope scope = this; scope != null; scope = scope.outer) {
            run.step();
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
}
