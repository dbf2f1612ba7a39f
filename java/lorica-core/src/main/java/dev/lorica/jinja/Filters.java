package dev.lorica.jinja;

import java.math.BigDecimal;
import java.math.RoundingMode;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Function;

/** What stands behind {@code |}. */
final class Filters {
    private Filters() {}

    interface Filter {
        Object apply(Object value, Arguments arguments);
    }

    /** {@code null}: there is none of that name. */
    static Filter named(String name) {
        return switch (name) {
            case "trim" ->
                (value, arguments) -> Values.strip(Values.text(value), arguments.text(0, "chars", null), true, true);
            case "upper" -> (value, arguments) -> Values.text(value).toUpperCase(Locale.ROOT);
            case "lower" -> (value, arguments) -> Values.text(value).toLowerCase(Locale.ROOT);
            case "capitalize" -> (value, arguments) -> Methods.capitalize(Values.text(value));
            case "title" -> (value, arguments) -> title(Values.text(value));
            case "length", "count" -> (value, arguments) -> Values.length(value);
            case "string" -> (value, arguments) -> Values.text(value);
            case "safe" -> (value, arguments) -> value;
            case "escape", "e" -> (value, arguments) -> escape(Values.text(value));
            case "replace" ->
                (value, arguments) -> Methods.replace(
                        Values.text(value),
                        Values.text(arguments.require(0, "old")),
                        Values.text(arguments.require(1, "new")),
                        arguments.integer(2, "count", -1));
            case "indent" -> Filters::indent;
            case "wordcount" -> (value, arguments) -> (long) Values.text(value).split("\\W+").length;
            case "default", "d" ->
                (value, arguments) -> {
                    boolean absent = value instanceof Undefined
                            || arguments.isTrue(1, "boolean", false) && !Values.isTrue(value);
                    return absent ? arguments.get(0, "default_value", "") : value;
                };
            case "int" -> Filters::toInteger;
            case "float" -> Filters::toFloat;
            case "abs" ->
                (value, arguments) -> Values.compare(value, 0L) < 0 ? Values.arithmetic("-", 0L, value) : value;
            case "round" -> Filters::round;
            case "tojson" ->
                (value, arguments) -> JsonText.of(
                        value,
                        indentation(arguments.get(-1, "indent", arguments.get(0, "indent", null))),
                        arguments.isTrue(-1, "ensure_ascii", false),
                        arguments.isTrue(-1, "sort_keys", false));
            case "list" -> (value, arguments) -> new ArrayList<>(Values.iterate(value));
            case "first" ->
                (value, arguments) -> {
                    List<Object> elements = Values.iterate(value);
                    return elements.isEmpty() ? new Undefined("the first of nothing") : elements.get(0);
                };
            case "last" ->
                (value, arguments) -> {
                    List<Object> elements = Values.iterate(value);
                    return elements.isEmpty()
                            ? new Undefined("the last of nothing")
                            : elements.get(elements.size() - 1);
                };
            case "join" ->
                (value, arguments) -> Methods.join(
                        Values.text(arguments.get(0, "d", "")), mapped(value, arguments.get(1, "attribute", null)));
            case "reverse" ->
                (value, arguments) -> {
                    List<Object> reversed = new ArrayList<>(Values.iterate(value));
                    Collections.reverse(reversed);
                    return value instanceof String ? Methods.join("", reversed) : reversed;
                };
            case "sort" -> Filters::sort;
            case "unique" -> Filters::unique;
            case "min" -> (value, arguments) -> extreme(value, arguments, Values::compare);
            case "max" -> (value, arguments) -> extreme(value, arguments, (a, b) -> Values.compare(b, a));
            case "sum" ->
                (value, arguments) -> {
                    Object sum = arguments.get(1, "start", 0L);
                    for (Object element : mapped(value, arguments.get(0, "attribute", null))) {
                        sum = Values.arithmetic("+", sum, element);
                    }
                    return sum;
                };
            case "items" ->
                (value, arguments) -> value instanceof Undefined ? List.of() : Methods.items(requireMap(value));
            case "dictsort" -> Filters::dictsort;
            case "map" -> Filters::map;
            case "select" -> (value, arguments) -> chosen(value, arguments, false, true);
            case "reject" -> (value, arguments) -> chosen(value, arguments, false, false);
            case "selectattr" -> (value, arguments) -> chosen(value, arguments, true, true);
            case "rejectattr" -> (value, arguments) -> chosen(value, arguments, true, false);
            case "groupby" -> Filters::groupBy;
            case "attr" -> (value, arguments) -> Values.attribute(value, arguments.text(0, "name", ""));
            case "batch" -> Filters::batch;
            default -> null;
        };
    }

    private static Map<?, ?> requireMap(Object value) {
        if (value instanceof Map<?, ?> map) {
            return map;
        }
        throw new JinjaException(Values.repr(value) + " is no dictionary");
    }

    private static String indentation(Object indent) {
        if (indent == null) {
            return null;
        }
        return indent instanceof String text
                ? text
                : " ".repeat((int) Math.max(0, Math.min(100, Values.toLong(indent))));
    }

    private static String escape(String text) {
        return text.replace("&", "&amp;")
                .replace("<", "&lt;")
                .replace(">", "&gt;")
                .replace("'", "&#39;")
                .replace("\"", "&#34;");
    }

    /** Every word with a capital; unlike the method, an apostrophe does not end one. */
    private static String title(String text) {
        StringBuilder title = new StringBuilder();
        boolean begins = true;
        for (int c : text.codePoints().toArray()) {
            title.appendCodePoint(begins ? Character.toUpperCase(c) : Character.toLowerCase(c));
            begins = c == '-' || Values.isSpace(c) || "({[<".indexOf(c) >= 0;
        }
        return title.toString();
    }

    private static Object indent(Object value, Arguments arguments) {
        Object width = arguments.get(0, "width", 4L);
        String indent = width instanceof String text ? text : indentation(width);
        boolean first = arguments.isTrue(1, "first", false);
        boolean blank = arguments.isTrue(2, "blank", false);
        StringBuilder indented = new StringBuilder();
        String[] lines = (Values.text(value) + (blank ? "\n" : "")).split("\n", -1);
        int n = blank ? lines.length - 1 : lines.length;
        for (int i = 0; i < n; i++) {
            boolean wanted = i == 0 ? first : blank || !lines[i].isEmpty();
            indented.append(i == 0 ? "" : "\n").append(wanted ? indent : "").append(lines[i]);
            Scope.checkLength(indented.length());
        }
        return indented.toString();
    }

    private static Object toInteger(Object value, Arguments arguments) {
        if (Values.isNumeric(value)) {
            return (long) Values.toDouble(value);
        }
        String text = Values.strip(Values.text(value), null, true, true);
        try {
            return Long.parseLong(text, arguments.integer(1, "base", 10));
        } catch (NumberFormatException e) {
            try {
                return (long) Double.parseDouble(text);
            } catch (NumberFormatException notEvenReal) {
                return arguments.get(0, "default", 0L);
            }
        }
    }

    private static Object toFloat(Object value, Arguments arguments) {
        if (Values.isNumeric(value)) {
            return Values.toDouble(value);
        }
        try {
            return Double.parseDouble(Values.strip(Values.text(value), null, true, true));
        } catch (NumberFormatException e) {
            return arguments.get(0, "default", 0.0);
        }
    }

    private static Object round(Object value, Arguments arguments) {
        if (!Values.isNumeric(value)) {
            throw new JinjaException(Values.repr(value) + " cannot be rounded");
        }
        RoundingMode mode =
                switch (Values.text(arguments.get(1, "method", "common"))) {
                    case "ceil" -> RoundingMode.CEILING;
                    case "floor" -> RoundingMode.FLOOR;
                    default -> RoundingMode.HALF_EVEN;
                };
        return new BigDecimal(Values.toDouble(value))
                .setScale(Math.max(-300, Math.min(300, arguments.integer(0, "precision", 0))), mode)
                .doubleValue();
    }

    /** The attribute of every element, with dots for attributes of attributes; {@code null}: the elements. */
    private static List<Object> mapped(Object value, Object attribute) {
        List<Object> elements = Values.iterate(value);
        if (attribute == null) {
            return elements;
        }
        List<Object> attributes = new ArrayList<>();
        elements.forEach(element -> attributes.add(path(element, attribute)));
        return attributes;
    }

    private static Object path(Object value, Object attribute) {
        Object found = value;
        for (String part : Values.text(attribute).split("\\.")) {
            found = Values.item(
                    found, part.chars().allMatch(Character::isDigit) && !part.isEmpty() ? Values.integer(part) : part);
        }
        return found;
    }

    /** Text without regard to case, unless told otherwise. */
    private static Function<Object, Object> key(Arguments arguments, int caseIndex, Object attribute) {
        boolean caseSensitive = arguments.isTrue(caseIndex, "case_sensitive", false);
        return value -> {
            Object key = attribute == null ? value : path(value, attribute);
            return !caseSensitive && key instanceof String text ? text.toLowerCase(Locale.ROOT) : key;
        };
    }

    private static Object sort(Object value, Arguments arguments) {
        Function<Object, Object> key = key(arguments, 1, arguments.get(2, "attribute", null));
        List<Object> sorted = new ArrayList<>(Values.iterate(value));
        Comparator<Object> order = (a, b) -> Values.compare(key.apply(a), key.apply(b));
        sorted.sort(arguments.isTrue(0, "reverse", false) ? order.reversed() : order);
        return sorted;
    }

    private static Object unique(Object value, Arguments arguments) {
        Function<Object, Object> key = key(arguments, 0, arguments.get(1, "attribute", null));
        Map<Object, Object> firsts = new LinkedHashMap<>();
        for (Object element : Values.iterate(value)) {
            firsts.putIfAbsent(key.apply(element), element);
        }
        return new ArrayList<>(firsts.values());
    }

    private static Object extreme(Object value, Arguments arguments, Comparator<Object> order) {
        Function<Object, Object> key = key(arguments, 0, arguments.get(1, "attribute", null));
        return Values.iterate(value).stream()
                .min((a, b) -> order.compare(key.apply(a), key.apply(b)))
                .orElse(new Undefined("the extreme of nothing"));
    }

    private static Object dictsort(Object value, Arguments arguments) {
        int by = Values.text(arguments.get(1, "by", "key")).equals("value") ? 1 : 0;
        Function<Object, Object> key = key(arguments, 0, null);
        Comparator<Object> order =
                (a, b) -> Values.compare(key.apply(((List<?>) a).get(by)), key.apply(((List<?>) b).get(by)));
        List<Object> items = Methods.items(requireMap(value));
        items.sort(arguments.isTrue(2, "reverse", false) ? order.reversed() : order);
        return items;
    }

    private static Object map(Object value, Arguments arguments) {
        Object attribute = arguments.named().get("attribute");
        List<Object> results = new ArrayList<>();
        if (attribute != null) {
            for (Object element : Values.iterate(value)) {
                Object found = path(element, attribute);
                results.add(found instanceof Undefined ? arguments.named().getOrDefault("default", found) : found);
            }
            return results;
        }
        String name = Values.text(arguments.require(0, "filter"));
        Filter filter = named(name);
        if (filter == null) {
            throw new JinjaException("there is no filter \"" + name + "\"");
        }
        Values.iterate(value).forEach(element -> results.add(filter.apply(element, arguments.behind(1, name))));
        return results;
    }

    private static Object chosen(Object value, Arguments arguments, boolean byAttribute, boolean wanted) {
        Object attribute = byAttribute ? arguments.require(0, "attribute") : null;
        int before = byAttribute ? 1 : 0;
        Tests.Test test = (subject, none) -> Values.isTrue(subject);
        String name = "";
        if (arguments.values().size() > before) {
            name = Values.text(arguments.values().get(before));
            test = Tests.named(name);
            if (test == null) {
                throw new JinjaException("there is no test \"" + name + "\"");
            }
        }
        List<Object> results = new ArrayList<>();
        Arguments rest = arguments.behind(before + 1, name);
        for (Object element : Values.iterate(value)) {
            if (test.holds(attribute == null ? element : path(element, attribute), rest) == wanted) {
                results.add(element);
            }
        }
        return results;
    }

    private static Object groupBy(Object value, Arguments arguments) {
        Object attribute = arguments.require(0, "attribute");
        List<Object> sorted = new ArrayList<>(Values.iterate(value));
        sorted.sort((a, b) -> Values.compare(path(a, attribute), path(b, attribute)));
        List<Object> groups = new ArrayList<>();
        Object last = null;
        List<Object> members = List.of();
        for (Object element : sorted) {
            Object key = path(element, attribute);
            if (groups.isEmpty() || !Values.equal(key, last)) {
                members = new ArrayList<>();
                Collection<Object> group = new ArrayList<>();
                group.add(key);
                group.add(members);
                groups.add(group);
                last = key;
            }
            members.add(element);
        }
        return groups;
    }

    private static Object batch(Object value, Arguments arguments) {
        int size = Math.max(1, arguments.integer(0, "linecount", 1));
        List<Object> batches = new ArrayList<>();
        List<Object> elements = Values.iterate(value);
        for (int from = 0; from < elements.size(); from += size) {
            List<Object> batch = new ArrayList<>(elements.subList(from, Math.min(from + size, elements.size())));
            Object fill = arguments.get(1, "fill_with", null);
            while (fill != null && batch.size() < size) {
                batch.add(fill);
            }
            batches.add(batch);
        }
        return batches;
    }
}
