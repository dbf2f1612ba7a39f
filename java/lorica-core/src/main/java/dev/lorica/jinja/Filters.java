package dev.lorica.jinja;

import java.math.BigDecimal;
import java.math.RoundingMode;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.UnaryOperator;

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
                (value, arguments) ->
                        Texts.strip(arguments.run(), text(value, arguments), arguments.text(0, "chars"), true, true);
            case "upper" -> (value, arguments) -> Texts.upper(arguments.run(), text(value, arguments));
            case "lower" -> (value, arguments) -> Texts.lower(arguments.run(), text(value, arguments));
            case "capitalize" -> (value, arguments) -> Texts.capitalize(arguments.run(), text(value, arguments));
            // Unlike the method, an apostrophe begins no word.
            case "title" ->
                (value, arguments) -> Texts.title(
                        arguments.run(),
                        text(value, arguments),
                        c -> c == '-' || Texts.isSpace(c) || "({[<".indexOf(c) >= 0);
            case "length", "count" -> (value, arguments) -> Values.length(arguments.run(), value);
            case "string" -> Filters::text;
            case "safe" -> (value, arguments) -> value;
            case "escape", "e" -> (value, arguments) -> escape(arguments.run(), text(value, arguments));
            case "replace" ->
                (value, arguments) -> Texts.replace(
                        arguments.run(),
                        text(value, arguments),
                        text(arguments.require(0, "old"), arguments),
                        text(arguments.require(1, "new"), arguments),
                        arguments.integer(2, "count", -1));
            case "indent" -> Filters::indent;
            case "wordcount" -> (value, arguments) -> words(arguments.run(), text(value, arguments));
            case "default", "d" ->
                (value, arguments) -> {
                    boolean absent = value instanceof Undefined
                            || arguments.isTrue(1, "boolean", false) && !Values.isTrue(value);
                    return absent ? arguments.get(0, "default_value", "") : value;
                };
            case "int" -> Filters::toInteger;
            case "float" -> Filters::toFloat;
            case "abs" ->
                (value, arguments) -> Values.compare(arguments.run(), value, 0L) < 0
                        ? Values.arithmetic(arguments.run(), "-", 0L, value)
                        : value;
            case "round" -> Filters::round;
            case "tojson" ->
                (value, arguments) -> JsonText.of(
                        arguments.run(),
                        value,
                        indentation(arguments, arguments.get(-1, "indent", arguments.get(0, "indent", null))),
                        arguments.isTrue(-1, "ensure_ascii", false),
                        arguments.isTrue(-1, "sort_keys", false));
            case "list" -> (value, arguments) -> Values.copy(arguments.run(), value);
            case "first" ->
                (value, arguments) -> {
                    List<Object> elements = Values.iterate(arguments.run(), value);
                    return elements.isEmpty() ? new Undefined("the first of nothing") : elements.get(0);
                };
            case "last" ->
                (value, arguments) -> {
                    List<Object> elements = Values.iterate(arguments.run(), value);
                    return elements.isEmpty()
                            ? new Undefined("the last of nothing")
                            : elements.get(elements.size() - 1);
                };
            case "join" ->
                (value, arguments) -> Texts.join(
                        arguments.run(),
                        text(arguments.get(0, "d", ""), arguments),
                        mapped(arguments.run(), value, arguments.get(1, "attribute", null)));
            case "reverse" ->
                (value, arguments) -> {
                    List<Object> reversed = Values.copy(arguments.run(), value);
                    Collections.reverse(reversed);
                    return value instanceof String ? Texts.join(arguments.run(), "", reversed) : reversed;
                };
            case "sort" -> Filters::sort;
            case "unique" -> Filters::unique;
            case "min" -> (value, arguments) -> extreme(value, arguments, -1);
            case "max" -> (value, arguments) -> extreme(value, arguments, 1);
            case "sum" ->
                (value, arguments) -> {
                    Object sum = arguments.get(1, "start", 0L);
                    for (Object element : mapped(arguments.run(), value, arguments.get(0, "attribute", null))) {
                        sum = Values.arithmetic(arguments.run(), "+", sum, element);
                    }
                    return sum;
                };
            case "items" ->
                (value, arguments) -> value instanceof Undefined
                        ? List.of()
                        : Methods.items(arguments.run(), requireMap(value, arguments));
            case "dictsort" -> Filters::dictsort;
            case "map" -> Filters::map;
            case "select" -> (value, arguments) -> chosen(value, arguments, false, true);
            case "reject" -> (value, arguments) -> chosen(value, arguments, false, false);
            case "selectattr" -> (value, arguments) -> chosen(value, arguments, true, true);
            case "rejectattr" -> (value, arguments) -> chosen(value, arguments, true, false);
            case "groupby" -> Filters::groupBy;
            case "attr" ->
                (value, arguments) -> Values.attribute(arguments.run(), value, arguments.requireText(0, "name"));
            case "batch" -> Filters::batch;
            default -> null;
        };
    }

    private static String text(Object value, Arguments arguments) {
        return Values.text(arguments.run(), value);
    }

    private static Map<?, ?> requireMap(Object value, Arguments arguments) {
        if (value instanceof Map<?, ?> map) {
            return map;
        }
        throw new JinjaException(Values.shown(arguments.run(), value) + " is no dictionary");
    }

    private static String indentation(Arguments arguments, Object indent) {
        if (indent == null) {
            return null;
        }
        return indent instanceof String text
                ? text
                : " ".repeat((int) Math.max(0, Math.min(100, Values.toLong(arguments.run(), indent))));
    }

    private static String escape(Run run, String text) {
        run.walk(text.length());
        StringBuilder escaped = new StringBuilder();
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            switch (c) {
                case '&' -> run.append(escaped, "&amp;");
                case '<' -> run.append(escaped, "&lt;");
                case '>' -> run.append(escaped, "&gt;");
                case '\'' -> run.append(escaped, "&#39;");
                case '"' -> run.append(escaped, "&#34;");
                default -> run.append(escaped, c);
            }
        }
        return escaped.toString();
    }

    private static long words(Run run, String text) {
        run.walk(text.length());
        long words = 0;
        boolean inside = false;
        for (int i = 0; i < text.length(); i++) {
            boolean letter = Character.isLetterOrDigit(text.charAt(i)) || text.charAt(i) == '_';
            words += letter && !inside ? 1 : 0;
            inside = letter;
        }
        return words;
    }

    private static Object indent(Object value, Arguments arguments) {
        Run run = arguments.run();
        Object width = arguments.get(0, "width", 4L);
        String indent = width instanceof String text ? text : indentation(arguments, width);
        boolean first = arguments.isTrue(1, "first", false);
        boolean blank = arguments.isTrue(2, "blank", false);
        String text = text(value, arguments);
        StringBuilder indented = new StringBuilder();
        int from = 0;
        while (from <= text.length()) {
            int end = text.indexOf('\n', from);
            end = end < 0 ? text.length() : end;
            boolean wanted = from == 0 ? first : blank || end > from;
            run.append(indented, from == 0 ? "" : "\n");
            run.append(indented, wanted ? indent : "");
            run.append(indented, text.substring(from, end));
            from = end + 1;
        }
        return indented.toString();
    }

    private static Object toInteger(Object value, Arguments arguments) {
        Object otherwise = arguments.get(0, "default", 0L);
        if (Values.isNumeric(value)) {
            return whole(Values.toDouble(value), value, otherwise);
        }
        String text = Texts.strip(arguments.run(), text(value, arguments), null, true, true);
        try {
            return Long.parseLong(text, arguments.integer(1, "base", 10));
        } catch (NumberFormatException e) {
            Double real = real(text);
            return real == null ? otherwise : whole(real, real, otherwise);
        }
    }

    private static Object whole(double real, Object value, Object otherwise) {
        return Values.isInteger(value)
                ? value
                : Double.isNaN(real) || Double.isInfinite(real) ? otherwise : (Object) (long) real;
    }

    private static Object toFloat(Object value, Arguments arguments) {
        if (Values.isNumeric(value)) {
            return Values.toDouble(value);
        }
        Double real = real(Texts.strip(arguments.run(), text(value, arguments), null, true, true));
        return real == null ? arguments.get(0, "default", 0.0) : real;
    }

    /** Python's float(); {@code null}: not a number. */
    private static Double real(String text) {
        // What Java takes for a number beyond Python: 1f, 0x1p3.
        if (text.isEmpty() || !text.chars().allMatch(c -> "+-.eE_0123456789".indexOf(c) >= 0)) {
            return switch (text) {
                case "nan" -> Double.NaN;
                case "inf", "infinity" -> Double.POSITIVE_INFINITY;
                case "-inf", "-infinity" -> Double.NEGATIVE_INFINITY;
                default -> null;
            };
        }
        try {
            return Double.valueOf(text.replace("_", ""));
        } catch (NumberFormatException e) {
            return null;
        }
    }

    private static Object round(Object value, Arguments arguments) {
        if (!Values.isNumeric(value)) {
            throw new JinjaException(Values.shown(arguments.run(), value) + " cannot be rounded");
        }
        RoundingMode mode =
                switch (text(arguments.get(1, "method", "common"), arguments)) {
                    case "ceil" -> RoundingMode.CEILING;
                    case "floor" -> RoundingMode.FLOOR;
                    default -> RoundingMode.HALF_EVEN;
                };
        double real = Values.toDouble(value);
        if (Double.isNaN(real) || Double.isInfinite(real)) {
            return real;
        }
        return new BigDecimal(real)
                .setScale(Math.max(-300, Math.min(300, arguments.integer(0, "precision", 0))), mode)
                .doubleValue();
    }

    /** The attribute of every element, with dots for attributes of attributes; {@code null}: the elements. */
    private static List<Object> mapped(Run run, Object value, Object attribute) {
        List<Object> elements = Values.iterate(run, value);
        if (attribute == null) {
            return elements;
        }
        UnaryOperator<Object> path = path(run, attribute);
        run.elements(elements.size());
        List<Object> attributes = new ArrayList<>(elements.size());
        elements.forEach(element -> attributes.add(path.apply(element)));
        return attributes;
    }

    private static UnaryOperator<Object> path(Run run, Object attribute) {
        List<Object> parts = new ArrayList<>();
        for (Object part : Texts.split(run, Values.text(run, attribute), ".", -1)) {
            String name = (String) part;
            boolean number =
                    !name.isEmpty() && name.length() < 10 && name.chars().allMatch(c -> c >= '0' && c <= '9');
            parts.add(number ? Values.integer(name) : name);
        }
        return value -> {
            Object found = value;
            for (Object part : parts) {
                found = Values.item(run, found, part);
            }
            return found;
        };
    }

    /** Text without regard to case, unless told otherwise. */
    private static UnaryOperator<Object> key(Arguments arguments, int caseIndex, Object attribute) {
        Run run = arguments.run();
        boolean caseSensitive = arguments.isTrue(caseIndex, "case_sensitive", false);
        UnaryOperator<Object> path = attribute == null ? value -> value : path(run, attribute);
        return value -> {
            Object key = path.apply(value);
            return !caseSensitive && key instanceof String text ? Texts.lower(run, text) : key;
        };
    }

    private record Keyed(Object key, Object value) {}

    /** Sorted by their keys, those of equal keys in their order. */
    private static List<Object> sorted(Run run, List<Object> elements, UnaryOperator<Object> key, boolean reverse) {
        run.elements(elements.size());
        run.bytes(32L * elements.size());
        List<Keyed> keyed = new ArrayList<>(elements.size());
        elements.forEach(element -> keyed.add(new Keyed(key.apply(element), element)));
        Comparator<Keyed> order = (a, b) -> Values.compare(run, a.key, b.key);
        try {
            keyed.sort(reverse ? order.reversed() : order);
        } catch (IllegalArgumentException e) {
            // Whole numbers beyond 2^53 beside others: what is less than what goes round in a circle.
            throw new JinjaException("these cannot be sorted");
        }
        List<Object> sorted = new ArrayList<>(keyed.size());
        keyed.forEach(element -> sorted.add(element.value));
        return sorted;
    }

    private static Object sort(Object value, Arguments arguments) {
        return sorted(
                arguments.run(),
                Values.iterate(arguments.run(), value),
                key(arguments, 1, arguments.get(2, "attribute", null)),
                arguments.isTrue(0, "reverse", false));
    }

    /** What a value is known by in a set: keys that compare, so that not even chosen ones make a set slow. */
    private record Known(String kind, String text) implements Comparable<Known> {
        @Override
        public int compareTo(Known other) {
            int order = kind.compareTo(other.kind);
            return order != 0 ? order : text.compareTo(other.text);
        }
    }

    private static Object unique(Object value, Arguments arguments) {
        Run run = arguments.run();
        UnaryOperator<Object> key = key(arguments, 0, arguments.get(1, "attribute", null));
        Set<Known> seen = new HashSet<>();
        List<Object> firsts = new ArrayList<>();
        for (Object element : Values.iterate(run, value)) {
            Object found = key.apply(element);
            boolean tuple = found instanceof Tuple;
            Object known = tuple ? found : Values.key(run, found);
            run.elements(4);
            if (seen.add(
                    new Known(known instanceof String ? "text" : tuple ? "tuple" : "other", Values.text(run, known)))) {
                firsts.add(element);
            }
        }
        return firsts;
    }

    /** @param sign −1: the least, 1: the greatest; the first of equal ones */
    private static Object extreme(Object value, Arguments arguments, int sign) {
        UnaryOperator<Object> key = key(arguments, 0, arguments.get(1, "attribute", null));
        Object best = new Undefined("the extreme of nothing");
        Object bestKey = null;
        boolean any = false;
        for (Object element : Values.iterate(arguments.run(), value)) {
            Object candidate = key.apply(element);
            if (!any || sign * Values.compare(arguments.run(), candidate, bestKey) > 0) {
                best = element;
                bestKey = candidate;
                any = true;
            }
        }
        return best;
    }

    private static Object dictsort(Object value, Arguments arguments) {
        int by = text(arguments.get(1, "by", "key"), arguments).equals("value") ? 1 : 0;
        UnaryOperator<Object> key = key(arguments, 0, null);
        return sorted(
                arguments.run(),
                Methods.items(arguments.run(), requireMap(value, arguments)),
                item -> key.apply(((List<?>) item).get(by)),
                arguments.isTrue(2, "reverse", false));
    }

    private static Object map(Object value, Arguments arguments) {
        Run run = arguments.run();
        Object attribute = arguments.named().get("attribute");
        List<Object> elements = Values.iterate(run, value);
        run.elements(elements.size());
        List<Object> results = new ArrayList<>(elements.size());
        if (attribute != null) {
            UnaryOperator<Object> path = path(run, attribute);
            for (Object element : elements) {
                Object found = path.apply(element);
                results.add(found instanceof Undefined ? arguments.named().getOrDefault("default", found) : found);
            }
            return results;
        }
        String name = text(arguments.require(0, "filter"), arguments);
        Filter filter = named(name);
        if (filter == null) {
            throw new JinjaException("there is no filter \"" + Texts.brief(name, 100) + "\"");
        }
        // A filter may apply a filter, and so on.
        run.enter(1);
        Arguments rest = arguments.behind(1, name);
        elements.forEach(element -> results.add(filter.apply(element, rest)));
        run.leave(1);
        return results;
    }

    private static Object chosen(Object value, Arguments arguments, boolean byAttribute, boolean wanted) {
        Run run = arguments.run();
        UnaryOperator<Object> path = byAttribute ? path(run, arguments.require(0, "attribute")) : element -> element;
        int before = byAttribute ? 1 : 0;
        Tests.Test test = (subject, none) -> Values.isTrue(subject);
        String name = "";
        if (arguments.values().size() > before) {
            name = text(arguments.values().get(before), arguments);
            test = Tests.named(name);
            if (test == null) {
                throw new JinjaException("there is no test \"" + Texts.brief(name, 100) + "\"");
            }
        }
        List<Object> results = new ArrayList<>();
        Arguments rest = arguments.behind(before + 1, name);
        List<Object> elements = Values.iterate(run, value);
        run.elements(elements.size());
        for (Object element : elements) {
            run.step();
            if (test.holds(path.apply(element), rest) == wanted) {
                results.add(element);
            }
        }
        return results;
    }

    private static Object groupBy(Object value, Arguments arguments) {
        Run run = arguments.run();
        UnaryOperator<Object> path = path(run, arguments.require(0, "attribute"));
        List<Object> groups = new ArrayList<>();
        Object last = null;
        List<Object> members = List.of();
        for (Object element : sorted(run, Values.iterate(run, value), path, false)) {
            Object key = path.apply(element);
            if (groups.isEmpty() || !Values.equal(run, key, last)) {
                run.elements(8);
                members = new ArrayList<>();
                groups.add(new Tuple(Arrays.asList(key, members)));
                last = key;
            }
            members.add(element);
        }
        return groups;
    }

    private static Object batch(Object value, Arguments arguments) {
        Run run = arguments.run();
        int size = Math.max(1, arguments.integer(0, "linecount", 1));
        Object fill = arguments.get(1, "fill_with", null);
        List<Object> batches = new ArrayList<>();
        List<Object> elements = Values.iterate(run, value);
        for (int from = 0; from < elements.size(); ) {
            int end = (int) Math.min((long) from + size, elements.size());
            run.elements(2L + (fill == null ? end - from : size));
            List<Object> batch = new ArrayList<>(elements.subList(from, end));
            while (fill != null && batch.size() < size) {
                batch.add(fill);
            }
            batches.add(batch);
            from = end;
        }
        return batches;
    }
}
