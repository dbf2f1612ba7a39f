package dev.lorica.jinja;

import java.util.Collection;
import java.util.Map;

/** What stands behind {@code is}. */
final class Tests {
    private Tests() {}

    interface Test {
        boolean holds(Object value, Arguments arguments);
    }

    /** {@code null}: there is none of that name. */
    static Test named(String name) {
        return switch (name) {
            case "defined" -> (value, arguments) -> !(value instanceof Undefined);
            case "undefined" -> (value, arguments) -> value instanceof Undefined;
            case "none" -> (value, arguments) -> value == null;
            case "true" -> (value, arguments) -> Boolean.TRUE.equals(value);
            case "false" -> (value, arguments) -> Boolean.FALSE.equals(value);
            case "boolean" -> (value, arguments) -> value instanceof Boolean;
            case "integer" -> (value, arguments) -> Values.isInteger(value);
            case "float" -> (value, arguments) -> value instanceof Number && !Values.isInteger(value);
            case "number" -> (value, arguments) -> Values.isNumeric(value);
            case "string" -> (value, arguments) -> value instanceof String;
            case "mapping" -> (value, arguments) -> value instanceof Map;
            case "sequence" ->
                (value, arguments) -> value instanceof String
                        || value instanceof Collection
                        || value instanceof Map
                        || value instanceof Undefined;
            case "iterable" ->
                (value, arguments) -> value instanceof String
                        || value instanceof Collection
                        || value instanceof Map
                        || value instanceof Undefined;
            case "callable" -> (value, arguments) -> value instanceof Callable;
            case "even" -> (value, arguments) -> Values.toLong(arguments.run(), value) % 2 == 0;
            case "odd" -> (value, arguments) -> Values.toLong(arguments.run(), value) % 2 != 0;
            case "divisibleby" ->
                (value, arguments) -> {
                    long divisor = Values.toLong(arguments.run(), arguments.require(0, "num"));
                    if (divisor == 0) {
                        throw new JinjaException("divisibleby: division by zero");
                    }
                    return Values.toLong(arguments.run(), value) % divisor == 0;
                };
            case "lower" ->
                (value, arguments) ->
                        isSame(arguments, value, Texts.lower(arguments.run(), Values.text(arguments.run(), value)));
            case "upper" ->
                (value, arguments) ->
                        isSame(arguments, value, Texts.upper(arguments.run(), Values.text(arguments.run(), value)));
            case "sameas" ->
                (value, arguments) -> {
                    Object other = arguments.require(0, "other");
                    // Python keeps equal constants once
                    return value == other
                            || (value instanceof Boolean || value instanceof String) && value.equals(other);
                };
            case "in" -> (value, arguments) -> Values.contains(arguments.run(), arguments.require(0, "seq"), value);
            case "eq", "equalto", "==" ->
                (value, arguments) -> Values.equal(arguments.run(), value, arguments.require(0, "other"));
            case "ne", "!=" ->
                (value, arguments) -> !Values.equal(arguments.run(), value, arguments.require(0, "other"));
            case "lt", "lessthan", "<" ->
                (value, arguments) -> Values.compare(arguments.run(), value, arguments.require(0, "other")) < 0;
            case "le", "<=" ->
                (value, arguments) -> Values.compare(arguments.run(), value, arguments.require(0, "other")) <= 0;
            case "gt", "greaterthan", ">" ->
                (value, arguments) -> Values.compare(arguments.run(), value, arguments.require(0, "other")) > 0;
            case "ge", ">=" ->
                (value, arguments) -> Values.compare(arguments.run(), value, arguments.require(0, "other")) >= 0;
            case "filter" -> (value, arguments) -> Filters.named(Values.text(arguments.run(), value)) != null;
            case "test" -> (value, arguments) -> named(Values.text(arguments.run(), value)) != null;
            default -> null;
        };
    }

    private static boolean isSame(Arguments arguments, Object value, String changed) {
        return Values.text(arguments.run(), value).equals(changed);
    }
}
