package dev.lorica.jinja;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** The methods of Python's texts, dictionaries and lists, as far as they change nothing. */
final class Methods {
    private Methods() {}

    private interface Method {
        Object call(Arguments arguments);
    }

    /** {@code null}: the value has no such method. */
    static Callable named(Object value, String name) {
        Method method = null;
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
        Method found = method;
        return (values, named) -> found.call(new Arguments(name, values, named));
    }

    private static Method ofMap(Map<?, ?> map, String name) {
        return switch (name) {
            case "items" -> arguments -> items(map);
            case "keys" -> arguments -> new ArrayList<Object>(map.keySet());
            case "values" -> arguments -> new ArrayList<Object>(map.values());
            case "get" ->
                arguments -> {
                    Object key = arguments.require(0, "key");
                    return map.containsKey(key) ? map.get(key) : arguments.get(1, "default", null);
                };
            case "copy" -> arguments -> map;
            default -> null;
        };
    }

    static List<Object> items(Map<?, ?> map) {
        List<Object> items = new ArrayList<>();
        map.forEach((key, value) -> items.add(new Tuple(Arrays.asList(key, value))));
        return items;
    }

    private static Method ofList(List<?> list, String name) {
        return switch (name) {
            case "index" ->
                arguments -> {
                    Object wanted = arguments.require(0, "value");
                    for (int i = 0; i < list.size(); i++) {
                        if (Values.equal(list.get(i), wanted)) {
                            return (long) i;
                        }
                    }
                    throw new JinjaException(Values.repr(wanted) + " is not in the list");
                };
            case "count" ->
                arguments -> list.stream()
                        .filter(element -> Values.equal(element, arguments.require(0, "value")))
                        .count();
            case "copy" -> arguments -> list;
            default -> null;
        };
    }

    private static Method ofText(String text, String name) {
        return switch (name) {
            case "strip" -> arguments -> Values.strip(text, arguments.text(0, "chars", null), true, true);
            case "lstrip" -> arguments -> Values.strip(text, arguments.text(0, "chars", null), true, false);
            case "rstrip" -> arguments -> Values.strip(text, arguments.text(0, "chars", null), false, true);
            case "upper" -> arguments -> text.toUpperCase(Locale.ROOT);
            case "lower" -> arguments -> text.toLowerCase(Locale.ROOT);
            case "title" -> arguments -> title(text);
            case "capitalize" -> arguments -> capitalize(text);
            case "startswith" -> arguments -> anyOf(arguments, text::startsWith);
            case "endswith" -> arguments -> anyOf(arguments, text::endsWith);
            case "removeprefix" ->
                arguments -> {
                    String prefix = arguments.text(0, "prefix", "");
                    return text.startsWith(prefix) ? text.substring(prefix.length()) : text;
                };
            case "removesuffix" ->
                arguments -> {
                    String suffix = arguments.text(0, "suffix", "");
                    return text.endsWith(suffix) ? text.substring(0, text.length() - suffix.length()) : text;
                };
            case "split" ->
                arguments -> split(text, arguments.text(0, "sep", null), arguments.integer(1, "maxsplit", -1));
            case "rsplit" ->
                arguments -> splitFromEnd(text, arguments.text(0, "sep", null), arguments.integer(1, "maxsplit", -1));
            case "splitlines" -> arguments -> lines(text, arguments.isTrue(0, "keepends", false));
            case "partition" ->
                arguments -> {
                    String separator = arguments.text(0, "sep", null);
                    int at = text.indexOf(nonEmpty(separator));
                    return at < 0
                            ? new Tuple(List.of(text, "", ""))
                            : new Tuple(
                                    List.of(text.substring(0, at), separator, text.substring(at + separator.length())));
                };
            case "rpartition" ->
                arguments -> {
                    String separator = arguments.text(0, "sep", null);
                    int at = text.lastIndexOf(nonEmpty(separator));
                    return at < 0
                            ? new Tuple(List.of("", "", text))
                            : new Tuple(
                                    List.of(text.substring(0, at), separator, text.substring(at + separator.length())));
                };
            case "replace" ->
                arguments -> replace(
                        text,
                        arguments.text(0, "old", null),
                        arguments.text(1, "new", null),
                        arguments.integer(2, "count", -1));
            case "find" ->
                arguments -> {
                    int at = text.indexOf(arguments.text(0, "sub", null));
                    return (long) (at < 0 ? -1 : text.codePointCount(0, at));
                };
            case "rfind" ->
                arguments -> {
                    int at = text.lastIndexOf(arguments.text(0, "sub", null));
                    return (long) (at < 0 ? -1 : text.codePointCount(0, at));
                };
            case "count" ->
                arguments -> (long) split(text, nonEmpty(arguments.text(0, "sub", null)), -1)
                                .size()
                        - 1;
            case "join" -> arguments -> join(text, Values.iterate(arguments.require(0, "iterable")));
            case "isdigit", "isnumeric", "isdecimal" ->
                arguments -> !text.isEmpty() && text.codePoints().allMatch(Character::isDigit);
            case "isalpha" -> arguments -> !text.isEmpty() && text.codePoints().allMatch(Character::isLetter);
            case "isalnum" -> arguments -> !text.isEmpty() && text.codePoints().allMatch(Character::isLetterOrDigit);
            case "isspace" -> arguments -> !text.isEmpty() && text.codePoints().allMatch(Values::isSpace);
            case "isupper" ->
                arguments -> !text.equals(text.toLowerCase(Locale.ROOT)) && text.equals(text.toUpperCase(Locale.ROOT));
            case "islower" ->
                arguments -> !text.equals(text.toUpperCase(Locale.ROOT)) && text.equals(text.toLowerCase(Locale.ROOT));
            default -> null;
        };
    }

    private interface Part {
        boolean matches(String part);
    }

    /** Of a text, or of any of a list of texts. */
    private static boolean anyOf(Arguments arguments, Part part) {
        Object given = arguments.require(0, "prefix");
        for (Object candidate : given instanceof List<?> list ? list : List.of(given)) {
            if (!(candidate instanceof String text)) {
                throw new JinjaException(arguments.of() + " takes a text, not " + Values.repr(candidate));
            }
            if (part.matches(text)) {
                return true;
            }
        }
        return false;
    }

    private static String nonEmpty(String separator) {
        if (separator == null || separator.isEmpty()) {
            throw new JinjaException("an empty separator");
        }
        return separator;
    }

    private static List<Object> split(String text, String separator, int most) {
        List<Object> parts = new ArrayList<>();
        if (separator == null) {
            int at = 0;
            while (true) {
                while (at < text.length() && Values.isSpace(text.charAt(at))) {
                    at++;
                }
                if (at == text.length()) {
                    return parts;
                }
                if (most >= 0 && parts.size() == most) {
                    parts.add(text.substring(at));
                    return parts;
                }
                int from = at;
                while (at < text.length() && !Values.isSpace(text.charAt(at))) {
                    at++;
                }
                parts.add(text.substring(from, at));
            }
        }
        nonEmpty(separator);
        int from = 0;
        for (int at = text.indexOf(separator);
                at >= 0 && (most < 0 || parts.size() < most);
                at = text.indexOf(separator, from)) {
            parts.add(text.substring(from, at));
            from = at + separator.length();
        }
        parts.add(text.substring(from));
        return parts;
    }

    private static List<Object> splitFromEnd(String text, String separator, int most) {
        if (most < 0) {
            return split(text, separator, most);
        }
        nonEmpty(separator);
        List<Object> parts = new ArrayList<>();
        int end = text.length();
        for (int at = text.lastIndexOf(separator); at >= 0 && parts.size() < most; ) {
            parts.add(0, text.substring(at + separator.length(), end));
            end = at;
            at = at - separator.length() < 0 ? -1 : text.lastIndexOf(separator, at - separator.length());
        }
        parts.add(0, text.substring(0, end));
        return parts;
    }

    private static List<Object> lines(String text, boolean keepEnds) {
        List<Object> lines = new ArrayList<>();
        int from = 0;
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c == '\n' || c == '\r' || c == 0x0b || c == 0x0c || c == 0x85 || c == 0x2028 || c == 0x2029) {
                int end = c == '\r' && i + 1 < text.length() && text.charAt(i + 1) == '\n' ? i + 2 : i + 1;
                lines.add(text.substring(from, keepEnds ? end : i));
                from = end;
                i = end - 1;
            }
        }
        if (from < text.length()) {
            lines.add(text.substring(from));
        }
        return lines;
    }

    static String replace(String text, String old, String with, int most) {
        if (old == null || with == null) {
            throw new JinjaException("replace needs two texts");
        }
        if (old.isEmpty()) {
            throw new JinjaException("replace of an empty text");
        }
        StringBuilder replaced = new StringBuilder();
        int from = 0;
        int count = 0;
        for (int at = text.indexOf(old); at >= 0 && (most < 0 || count < most); at = text.indexOf(old, from), count++) {
            replaced.append(text, from, at).append(with);
            Scope.checkLength(replaced.length());
            from = at + old.length();
        }
        return replaced.append(text, from, text.length()).toString();
    }

    static String join(String separator, List<Object> elements) {
        StringBuilder joined = new StringBuilder();
        for (int i = 0; i < elements.size(); i++) {
            joined.append(i == 0 ? "" : separator).append(Values.text(elements.get(i)));
            Scope.checkLength(joined.length());
        }
        return joined.toString();
    }

    static String capitalize(String text) {
        if (text.isEmpty()) {
            return text;
        }
        int end = text.offsetByCodePoints(0, 1);
        return text.substring(0, end).toUpperCase(Locale.ROOT)
                + text.substring(end).toLowerCase(Locale.ROOT);
    }

    /** A capital wherever a letter follows something else, as Python has it: {@code they'Re}. */
    static String title(String text) {
        StringBuilder title = new StringBuilder();
        boolean inWord = false;
        for (int c : text.codePoints().toArray()) {
            boolean letter = Character.isLetter(c);
            title.appendCodePoint(!letter ? c : inWord ? Character.toLowerCase(c) : Character.toTitleCase(c));
            inWord = letter;
        }
        return title.toString();
    }
}
