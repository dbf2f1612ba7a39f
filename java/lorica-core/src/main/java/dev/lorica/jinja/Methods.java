package dev.lorica.jinja;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.function.IntPredicate;

/** The methods of Python's texts, dictionaries and lists, as far as they change nothing. */
final class Methods {
    private Methods() {}

    /** {@code null}: the value has no such method. */
    static Callable named(Object value, String name) {
        Callable method = null;
        if (value instanceof String text) {
            method = ofText(text, name);
        } else if (value instanceof Map<?, ?> map) {
            method = ofMap(map, name);
        } else if (value instanceof List<?> list) {
            method = ofList(list, name);
        }
        if (method == null) {
            return null;
        }
        Callable found = method;
        return arguments -> found.call(arguments.behind(0, name));
    }

    private static Callable ofMap(Map<?, ?> map, String name) {
        return switch (name) {
            case "items" -> arguments -> items(arguments.run(), map);
            case "keys" ->
                arguments -> {
                    arguments.run().elements(map.size());
                    return new ArrayList<Object>(map.keySet());
                };
            case "values" ->
                arguments -> {
                    arguments.run().elements(map.size());
                    return new ArrayList<Object>(map.values());
                };
            case "get" ->
                arguments -> {
                    Object key = Values.key(arguments.run(), arguments.require(0, "key"));
                    return Values.has(map, key) ? map.get(key) : arguments.get(1, "default", null);
                };
            case "copy" -> arguments -> map;
            default -> null;
        };
    }

    static List<Object> items(Run run, Map<?, ?> map) {
        run.elements(6L * map.size());
        List<Object> items = new ArrayList<>();
        map.forEach((key, value) -> items.add(new Tuple(Arrays.asList(key, value))));
        return items;
    }

    private static Callable ofList(List<?> list, String name) {
        return switch (name) {
            case "index" ->
                arguments -> {
                    Object wanted = arguments.require(0, "value");
                    for (int i = 0; i < list.size(); i++) {
                        if (Values.equal(arguments.run(), list.get(i), wanted)) {
                            return (long) i;
                        }
                    }
                    throw new JinjaException(Values.shown(arguments.run(), wanted) + " is not in the list");
                };
            case "count" ->
                arguments -> {
                    Object wanted = arguments.require(0, "value");
                    long count = 0;
                    for (Object element : list) {
                        count += Values.equal(arguments.run(), element, wanted) ? 1 : 0;
                    }
                    return count;
                };
            case "copy" -> arguments -> list;
            default -> null;
        };
    }

    private static Callable ofText(String text, String name) {
        return switch (name) {
            case "strip" -> arguments -> Texts.strip(arguments.run(), text, arguments.text(0, "chars"), true, true);
            case "lstrip" -> arguments -> Texts.strip(arguments.run(), text, arguments.text(0, "chars"), true, false);
            case "rstrip" -> arguments -> Texts.strip(arguments.run(), text, arguments.text(0, "chars"), false, true);
            case "upper" -> arguments -> Texts.upper(arguments.run(), text);
            case "lower" -> arguments -> Texts.lower(arguments.run(), text);
            // A capital wherever a letter follows something else, as Python has it: they'Re.
            case "title" -> arguments -> Texts.title(arguments.run(), text, c -> !Character.isLetter(c));
            case "capitalize" -> arguments -> Texts.capitalize(arguments.run(), text);
            case "startswith" -> arguments -> anyOf(arguments, text::startsWith);
            case "endswith" -> arguments -> anyOf(arguments, text::endsWith);
            case "removeprefix" ->
                arguments -> {
                    String prefix = arguments.requireText(0, "prefix");
                    arguments.run().make(text.length());
                    return text.startsWith(prefix) ? text.substring(prefix.length()) : text;
                };
            case "removesuffix" ->
                arguments -> {
                    String suffix = arguments.requireText(0, "suffix");
                    arguments.run().make(text.length());
                    return text.endsWith(suffix) ? text.substring(0, text.length() - suffix.length()) : text;
                };
            case "split" ->
                arguments -> Texts.split(
                        arguments.run(), text, arguments.text(0, "sep"), arguments.integer(1, "maxsplit", -1));
            case "rsplit" ->
                arguments -> Texts.splitFromEnd(
                        arguments.run(), text, arguments.text(0, "sep"), arguments.integer(1, "maxsplit", -1));
            case "splitlines" ->
                arguments -> Texts.lines(arguments.run(), text, arguments.isTrue(0, "keepends", false));
            case "partition" ->
                arguments -> {
                    String separator = Texts.nonEmpty(arguments.text(0, "sep"));
                    int at = Texts.indexOf(arguments.run(), text, separator, 0);
                    return at < 0 ? new Tuple(List.of(text, "", "")) : parted(arguments.run(), text, at, separator);
                };
            case "rpartition" ->
                arguments -> {
                    String separator = Texts.nonEmpty(arguments.text(0, "sep"));
                    int at = Texts.lastIndexOf(arguments.run(), text, separator, text.length());
                    return at < 0 ? new Tuple(List.of("", "", text)) : parted(arguments.run(), text, at, separator);
                };
            case "replace" ->
                arguments -> Texts.replace(
                        arguments.run(),
                        text,
                        arguments.requireText(0, "old"),
                        arguments.requireText(1, "new"),
                        arguments.integer(2, "count", -1));
            case "find" ->
                arguments -> place(text, Texts.indexOf(arguments.run(), text, arguments.requireText(0, "sub"), 0));
            case "rfind" ->
                arguments -> place(
                        text, Texts.lastIndexOf(arguments.run(), text, arguments.requireText(0, "sub"), text.length()));
            case "count" -> arguments -> Texts.count(arguments.run(), text, Texts.nonEmpty(arguments.text(0, "sub")));
            case "join" ->
                arguments -> Texts.join(
                        arguments.run(), text, Values.iterate(arguments.run(), arguments.require(0, "iterable")));
            case "isdigit", "isnumeric", "isdecimal" -> arguments -> all(arguments, text, Character::isDigit);
            case "isalpha" -> arguments -> all(arguments, text, Character::isLetter);
            case "isalnum" -> arguments -> all(arguments, text, Character::isLetterOrDigit);
            case "isspace" -> arguments -> all(arguments, text, Texts::isSpace);
            case "isupper" ->
                arguments -> isCase(text, Texts.lower(arguments.run(), text), Texts.upper(arguments.run(), text));
            case "islower" ->
                arguments -> isCase(text, Texts.upper(arguments.run(), text), Texts.lower(arguments.run(), text));
            default -> null;
        };
    }

    private static Tuple parted(Run run, String text, int at, String separator) {
        run.make(text.length());
        return new Tuple(List.of(text.substring(0, at), separator, text.substring(at + separator.length())));
    }

    /** In code points. */
    private static long place(String text, int at) {
        return at < 0 ? -1 : text.codePointCount(0, at);
    }

    private static boolean all(Arguments arguments, String text, IntPredicate predicate) {
        arguments.run().walk(text.length());
        return !text.isEmpty() && text.codePoints().allMatch(predicate);
    }

    private static boolean isCase(String text, String other, String same) {
        return !text.equals(other) && text.equals(same);
    }

    private interface Part {
        boolean matches(String part);
    }

    /** Of a text, or of any of a list of texts. */
    private static boolean anyOf(Arguments arguments, Part part) {
        Object given = arguments.require(0, "prefix");
        for (Object candidate : given instanceof List<?> list ? list : Arrays.asList(given)) {
            if (!(candidate instanceof String text)) {
                throw new JinjaException(
                        arguments.of() + " takes a text, not " + Values.shown(arguments.run(), candidate));
            }
            arguments.run().walk(text.length() / 16);
            if (part.matches(text)) {
                return true;
            }
        }
        return false;
    }
}
