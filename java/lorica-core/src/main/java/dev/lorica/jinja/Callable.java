package dev.lorica.jinja;

import java.util.List;
import java.util.Map;

/** What can be called in a template: a macro, a function, a method. */
interface Callable {
    Object call(List<Object> arguments, Map<String, Object> named);
}
