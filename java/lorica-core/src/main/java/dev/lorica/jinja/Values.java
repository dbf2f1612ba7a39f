package dev.lorica.jinja;

import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;

/**
 * What Python does with values: truth, text form, comparison, arithmetic, elements, slices. A value may hold another many times
 * over, so that walking through it takes far longer than making it took; whatever walks counts its steps.
 */
final class Values {
    /** Characters of a value in a message. */
    private static final int MOST_SHOWN = 200;

    private Values() {}

    static boolean isTrue(Object value) {
        if (value instanceof Boolean b) {
            return b;
        }
        if (value instanceof String s) {
            return !s.isEmpty();
        }
        if (value instanceof Collection<?> c) {
            return !c.isEmpty();
        }
        if (value instanceof Map<?, ?> m) {
            return !m.isEmpty();
        }
        if (value instanceof Number n) {
            return n.doubleValue() != 0;
        }
        return value != null && !(value instanceof Undefined);
    }

    static boolean isInteger(Object value) {
        return value instanceof Long || value instanceof Integer || value instanceof Short || value instanceof Byte;
    }

    static Object integer(String digits) {
        try {
            return Long.valueOf(digits);
        } catch (NumberFormatException e) {
            throw new JinjaException("the number " + Texts.brief(digits, MOST_SHOWN) + " is too large");
        }
    }

    static long toLong(Run run, Object value) {
        if (isInteger(value)) {
            return ((Number) value).longValue();
        }
        if (value instanceof Boolean b) {
            return b ? 1 : 0;
        }
        throw value instanceof Undefined undefined
                ? undefined.error()
                : new JinjaException(shown(run, value) + " is no integer");
    }

    // ---- text ----

    /** Python's {@code str()}. */
    static String text(Run run, Object value) {
        if (value instanceof String s) {
            return s;
        }
        return value instanceof Undefined ? "" : repr(run, value);
    }

    /** Python's {@code repr()}. */
    static String repr(Run run, Object value) {
        StringBuilder out = new StringBuilder();
        repr(run, value, out, Integer.MAX_VALUE);
        return out.toString();
    }

    /** The beginning of its {@code repr()}, for messages. */
    static String shown(Run run, Object value) {
        StringBuilder out = new StringBuilder();
        repr(run, value, out, MOST_SHOWN);
        return Texts.brief(out.toString(), MOST_SHOWN);
    }

    /** @param enough the rest is left out behind so many characters */
    private static void repr(Run run, Object value, StringBuilder out, int enough) {
        if (out.length() > enough) {
            return;
        }
        run.enter(1);
        if (value == null) {
            run.append(out, "None");
        } else if (value instanceof Boolean b) {
            run.append(out, b ? "True" : "False");
        } else if (value instanceof String s) {
            quote(run, Texts.brief(s, enough), out);
        } else if (value instanceof Collection<?> list) {
            boolean tuple = list instanceof Tuple;
            String separator = "";
            run.append(out, tuple ? '(' : '[');
            for (Object element : list) {
                run.append(out, separator);
                repr(run, element, out, enough);
                separator = ", ";
                if (out.length() > enough) {
                    break;
                }
            }
            run.append(out, tuple ? list.size() == 1 ? ",)" : ")" : "]");
        } else if (value instanceof Map<?, ?> map) {
            String separator = "";
            run.append(out, '{');
            for (Map.Entry<?, ?> entry : map.entrySet()) {
                run.append(out, separator);
                repr(run, entry.getKey(), out, enough);
                run.append(out, ": ");
                repr(run, entry.getValue(), out, enough);
                separator = ", ";
                if (out.length() > enough) {
                    break;
                }
            }
            run.append(out, '}');
        } else if (value instanceof Number number) {
            run.append(out, number(number));
        } else {
            run.append(
                    out,
                    value instanceof Undefined
                            ? "Undefined"
                            : "<" + value.getClass().getSimpleName() + ">");
        }
        run.leave(1);
    }

    private static void quote(Run run, String text, StringBuilder out) {
        char mark = text.indexOf('\'') >= 0 && text.indexOf('"') < 0 ? '"' : '\'';
        run.walk(text.length());
        run.append(out, mark);
        for (int i = 0; i < text.length(); ) {
            int c = text.codePointAt(i);
            i += Character.charCount(c);
            switch (c) {
                case '\n' -> run.append(out, "\\n");
                case '\r' -> run.append(out, "\\r");
                case '\t' -> run.append(out, "\\t");
                case '\\' -> run.append(out, "\\\\");
                default -> {
                    if (c == mark) {
                        run.append(out, "\\" + mark);
                    } else if (c < 0x20 || c == 0x7f || c > 0x7f && !isPrintable(c)) {
                        run.append(out, Texts.escaped(c));
                    } else if (c < 0x10000) {
                        run.append(out, (char) c);
                    } else {
                        run.append(out, Character.toString(c));
                    }
                }
            }
        }
        run.append(out, mark);
    }

    private static boolean isPrintable(int c) {
        if (JinjaTemplate.isMark(c)) {
            return true;
        }
        return switch (Character.getType(c)) {
            case Character.CONTROL,
                    Character.FORMAT,
                    Character.SURROGATE,
                    Character.PRIVATE_USE,
                    Character.UNASSIGNED,
                    Character.LINE_SEPARATOR,
                    Character.PARAGRAPH_SEPARATOR,
                    Character.SPACE_SEPARATOR -> false;
            default -> true;
        };
    }

    /** A number as Python writes it: {@code 1e-05}, {@code 1.0}, {@code 1e+16}. */
    static String number(Number number) {
        if (!(number instanceof Double || number instanceof Float || number instanceof BigDecimal)) {
            return number.toString();
        }
        double value = number.doubleValue();
        if (Double.isNaN(value)) {
            return "nan";
        }
        if (Double.isInfinite(value)) {
            return value > 0 ? "inf" : "-inf";
        }
        if (value == 0) {
            return 1 / value < 0 ? "-0.0" : "0.0";
        }
        BigDecimal decimal = new BigDecimal(Double.toString(value)).stripTrailingZeros();
        int exponent = decimal.precision() - decimal.scale() - 1;
        if (exponent < -4 || exponent >= 16) {
            String digits = decimal.unscaledValue().abs().toString();
            String fraction = digits.length() > 1 ? "." + digits.substring(1) : "";
            return (value < 0 ? "-" : "") + digits.charAt(0) + fraction + "e" + (exponent < 0 ? "-" : "+")
                    + (Math.abs(exponent) < 10 ? "0" : "") + Math.abs(exponent);
        }
        String plain = decimal.toPlainString();
        return plain.indexOf('.') < 0 ? plain + ".0" : plain;
    }

    // ---- comparison ----

    static boolean equal(Run run, Object a, Object b) {
        if (a instanceof Undefined && b instanceof Undefined) {
            return true;
        }
        if (isNumeric(a) && isNumeric(b)) {
            run.step();
            return isReal(a) || isReal(b) ? toDouble(a) == toDouble(b) : toLong(run, a) == toLong(run, b);
        }
        if (a instanceof String x && b instanceof String y) {
            run.steps(1 + (x.length() == y.length() ? x.length() / 64 : 0));
            return x.equals(y);
        }
        if (a instanceof List<?> x && b instanceof List<?> y) {
            if (x.size() != y.size() || x instanceof Tuple != y instanceof Tuple) {
                return false;
            }
            run.enter(1);
            boolean equal = true;
            for (int i = 0; equal && i < x.size(); i++) {
                equal = equal(run, x.get(i), y.get(i));
            }
            run.leave(1);
            return equal;
        }
        if (a instanceof Map<?, ?> x && b instanceof Map<?, ?> y) {
            if (x.size() != y.size()) {
                return false;
            }
            run.enter(1);
            boolean equal = true;
            for (Map.Entry<?, ?> entry : x.entrySet()) {
                equal = equal
                        && has(y, key(run, entry.getKey()))
                        && equal(run, entry.getValue(), y.get(entry.getKey()));
            }
            run.leave(1);
            return equal;
        }
        run.step();
        return a == b;
    }

    static boolean isNumeric(Object value) {
        return value instanceof Number || value instanceof Boolean;
    }

    private static boolean isReal(Object value) {
        return value instanceof Number && !isInteger(value);
    }

    static double toDouble(Object value) {
        return value instanceof Boolean b ? b ? 1 : 0 : ((Number) value).doubleValue();
    }

    static int compare(Run run, Object a, Object b) {
        run.step();
        if (isNumeric(a) && isNumeric(b)) {
            return isReal(a) || isReal(b)
                    ? Double.compare(toDouble(a), toDouble(b))
                    : Long.compare(toLong(run, a), toLong(run, b));
        }
        if (a instanceof String x && b instanceof String y) {
            return Texts.compare(run, x, y);
        }
        if (a instanceof List<?> x && b instanceof List<?> y) {
            run.enter(1);
            int order = Integer.compare(x.size(), y.size());
            for (int i = 0; i < Math.min(x.size(), y.size()); i++) {
                if (!equal(run, x.get(i), y.get(i))) {
                    order = compare(run, x.get(i), y.get(i));
                    break;
                }
            }
            run.leave(1);
            return order;
        }
        if (a instanceof Undefined || b instanceof Undefined) {
            throw ((Undefined) (a instanceof Undefined ? a : b)).error();
        }
        throw new JinjaException(shown(run, a) + " and " + shown(run, b) + " cannot be compared");
    }

    static boolean contains(Run run, Object container, Object value) {
        if (container instanceof String text) {
            if (value instanceof String part) {
                return Texts.indexOf(run, text, part, 0) >= 0;
            }
            throw new JinjaException("only a text can be in a text, not " + shown(run, value));
        }
        if (container instanceof Map<?, ?> map) {
            return has(map, key(run, value));
        }
        for (Object element : iterate(run, container)) {
            if (equal(run, element, value)) {
                return true;
            }
        }
        return false;
    }

    /** The value as a key of a dictionary, which in Python too a list cannot be. */
    static Object key(Run run, Object value) {
        if (!isKey(value)) {
            throw new JinjaException(shown(run, value) + " cannot be a key of a dictionary");
        }
        run.steps(1 + (value instanceof String text ? text.length() / 64 : 0));
        if (value instanceof Double real && real == Math.rint(real) && Math.abs(real) < 1e15) {
            return (long) (double) real;
        }
        return isInteger(value) ? (Object) ((Number) value).longValue() : value;
    }

    private static boolean isKey(Object value) {
        return value == null || value instanceof String || isNumeric(value);
    }

    // ---- arithmetic ----

    static Object add(Run run, String a, String b) {
        run.make((long) a.length() + b.length());
        return a.concat(b);
    }

    static Object arithmetic(Run run, String sign, Object a, Object b) {
        run.step();
        if (a instanceof Undefined || b instanceof Undefined) {
            throw ((Undefined) (a instanceof Undefined ? a : b)).error();
        }
        if (sign.equals("+") && a instanceof String x && b instanceof String y) {
            return add(run, x, y);
        }
        if (sign.equals("+") && a instanceof List<?> x && b instanceof List<?> y) {
            run.elements((long) x.size() + y.size());
            List<Object> both = new ArrayList<>(x.size() + y.size());
            both.addAll(x);
            both.addAll(y);
            return a instanceof Tuple && b instanceof Tuple ? new Tuple(both) : both;
        }
        if (sign.equals("*") && isInteger(b) && (a instanceof String || a instanceof List)) {
            return repeat(run, a, toLong(run, b));
        }
        if (sign.equals("*") && isInteger(a) && (b instanceof String || b instanceof List)) {
            return repeat(run, b, toLong(run, a));
        }
        if (!isNumeric(a) || !isNumeric(b)) {
            throw new JinjaException("\"" + sign + "\" is not for " + kind(a) + " and " + kind(b));
        }
        try {
            return isReal(a) || isReal(b) || sign.equals("/")
                    ? real(sign, toDouble(a), toDouble(b))
                    : integral(sign, toLong(run, a), toLong(run, b));
        } catch (ArithmeticException e) {
            throw new JinjaException(shown(run, a) + " " + sign + " " + shown(run, b) + ": "
                    + (isTrue(b) ? "the result is too large" : "division by zero"));
        }
    }

    private static Object integral(String sign, long a, long b) {
        return switch (sign) {
            case "+" -> Math.addExact(a, b);
            case "-" -> Math.subtractExact(a, b);
            case "*" -> Math.multiplyExact(a, b);
            case "//" -> Math.floorDiv(a, b);
            case "%" -> Math.floorMod(a, b);
            default -> power(a, b);
        };
    }

    private static Object power(long a, long b) {
        if (b < 0) {
            if (a == 0) {
                throw new ArithmeticException();
            }
            return Math.pow(a, b);
        }
        if (b > 63 && Math.abs(a) > 1) {
            throw new ArithmeticException();
        }
        long result = 1;
        for (long i = 0; i < Math.min(b, 64 + (b & 1)); i++) {
            result = Math.multiplyExact(result, a);
        }
        return result;
    }

    private static Object real(String sign, double a, double b) {
        if (b == 0 && (sign.equals("/") || sign.equals("//") || sign.equals("%"))) {
            throw new ArithmeticException();
        }
        return switch (sign) {
            case "+" -> a + b;
            case "-" -> a - b;
            case "*" -> a * b;
            case "/" -> a / b;
            case "//" -> Math.floor(a / b);
            case "%" -> a - b * Math.floor(a / b);
            default -> Math.pow(a, b);
        };
    }

    private static Object repeat(Run run, Object value, long times) {
        int n = (int) Math.max(0, Math.min(times, Integer.MAX_VALUE));
        if (value instanceof String text) {
            run.make((long) text.length() * n);
            return text.repeat(n);
        }
        List<?> list = (List<?>) value;
        run.elements((long) list.size() * n);
        List<Object> repeated = new ArrayList<>();
        for (int i = 0; i < n && !list.isEmpty(); i++) {
            repeated.addAll(list);
        }
        return value instanceof Tuple ? new Tuple(repeated) : repeated;
    }

    // ---- elements ----

    static String kind(Object value) {
        if (value == null) {
            return "none";
        }
        if (value instanceof String) {
            return "a text";
        }
        if (value instanceof Boolean) {
            return "true or false";
        }
        if (value instanceof Number) {
            return "a number";
        }
        return value instanceof List ? "a list" : value instanceof Map ? "a dictionary" : "such a value";
    }

    /** What a loop walks through: elements, keys, characters. */
    static List<Object> iterate(Run run, Object value) {
        if (value instanceof List<?> list) {
            @SuppressWarnings("unchecked")
            List<Object> elements = (List<Object>) list;
            return elements;
        }
        if (value instanceof Collection<?> elements) {
            run.elements(elements.size());
            return new ArrayList<>(elements);
        }
        if (value instanceof Map<?, ?> map) {
            run.elements(map.size());
            return new ArrayList<>(map.keySet());
        }
        if (value instanceof String text) {
            run.elements(text.length());
            // Each character is a text of its own.
            run.bytes(56L * text.length());
            List<Object> characters = new ArrayList<>(text.length());
            text.codePoints().forEach(c -> characters.add(Character.toString(c)));
            return characters;
        }
        if (value instanceof Undefined) {
            return List.of();
        }
        throw new JinjaException(shown(run, value) + " has no elements");
    }

    /** A list of its own. */
    static List<Object> copy(Run run, Object value) {
        List<Object> elements = iterate(run, value);
        run.elements(elements.size());
        return new ArrayList<>(elements);
    }

    static long length(Run run, Object value) {
        if (value instanceof String text) {
            run.walk(text.length());
            return text.codePointCount(0, text.length());
        }
        return value instanceof Map<?, ?> map ? map.size() : iterate(run, value).size();
    }

    /** {@code value.name}: a method or what the value offers by that name, else the element with that key. */
    static Object attribute(Run run, Object value, String name) {
        run.step();
        if (value instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (value instanceof Namespace namespace) {
            return namespace.get(name);
        }
        if (value instanceof Loop.State loop) {
            return loop.attribute(name);
        }
        Callable method = Methods.named(value, name);
        if (method != null) {
            return method;
        }
        if (value instanceof Map<?, ?> map && map.containsKey(name)) {
            return map.get(name);
        }
        return new Undefined(name);
    }

    /** Callers may give maps that do not even take the question whether null is in them. */
    static boolean has(Map<?, ?> map, Object key) {
        try {
            return map.containsKey(key);
        } catch (NullPointerException e) {
            return false;
        }
    }

    /** {@code value[key]}: the element, else what the value offers by that name. */
    static Object item(Run run, Object value, Object key) {
        run.step();
        if (value instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (value instanceof Map<?, ?> map && isKey(key)) {
            Object known = key(run, key);
            if (has(map, known)) {
                return map.get(known);
            }
        }
        if ((value instanceof String || value instanceof List) && (isInteger(key) || key instanceof Boolean)) {
            long index = toLong(run, key);
            long n = length(run, value);
            long at = index < 0 ? index + n : index;
            if (at < 0 || at >= n) {
                return new Undefined("element " + index);
            }
            if (value instanceof String text) {
                int from = text.offsetByCodePoints(0, (int) at);
                return Character.toString(text.codePointAt(from));
            }
            return ((List<?>) value).get((int) at);
        }
        return key instanceof String name ? attribute(run, value, name) : new Undefined(shown(run, key));
    }

    /** Python's slice; {@code null}: not given. */
    static Object slice(Run run, Object value, Object from, Object to, Object by) {
        if (value instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (!(value instanceof String) && !(value instanceof List)) {
            throw new JinjaException(shown(run, value) + " cannot be sliced");
        }
        long step = by == null ? 1 : toLong(run, by);
        if (step == 0) {
            throw new JinjaException("a slice with step 0");
        }
        int n = (int) length(run, value);
        long begin = from == null ? (step > 0 ? 0 : n - 1) : bound(toLong(run, from), n, step);
        long end = to == null ? (step > 0 ? n : -1) : bound(toLong(run, to), n, step);
        if (value instanceof String text) {
            return sliced(run, text, (int) begin, (int) end, step);
        }
        List<?> elements = (List<?>) value;
        run.elements(count(begin, end, step));
        List<Object> part = new ArrayList<>();
        for (long i = begin, left = count(begin, end, step); left > 0; i += step, left--) {
            part.add(elements.get((int) i));
        }
        return value instanceof Tuple ? new Tuple(part) : part;
    }

    /** How many places there are from {@code begin} to {@code end}. */
    private static long count(long begin, long end, long step) {
        return step > 0
                ? begin < end ? (end - begin - 1) / step + 1 : 0
                : begin > end ? step == Long.MIN_VALUE ? 1 : (begin - end - 1) / -step + 1 : 0;
    }

    private static String sliced(Run run, String text, int begin, int end, long step) {
        if (step == 1) {
            run.make(text.length());
            int first = text.offsetByCodePoints(0, begin);
            return begin >= end ? "" : text.substring(first, text.offsetByCodePoints(first, end - begin));
        }
        run.walk(4L * text.length());
        run.make(text.length());
        run.bytes(4L * text.length());
        int[] characters = text.codePoints().toArray();
        StringBuilder part = new StringBuilder();
        long i = begin;
        for (long left = count(begin, end, step); left > 0; i += step, left--) {
            part.appendCodePoint(characters[(int) i]);
        }
        return part.toString();
    }

    private static long bound(long index, int n, long step) {
        long at = index < 0 ? index + n : index;
        return step > 0 ? Math.max(0, Math.min(at, n)) : Math.max(-1, Math.min(at, n - 1));
    }

    /** Assigns to one name, or the elements of {@code value} to several. */
    static void unpack(List<String> names, Object value, Scope scope) {
        if (names.size() == 1) {
            scope.set(names.get(0), value);
            return;
        }
        List<Object> elements = iterate(scope.run, value);
        if (elements.size() != names.size()) {
            throw new JinjaException(
                    elements.size() + " values for " + Texts.brief(String.join(", ", names), MOST_SHOWN));
        }
        scope.run.steps(names.size());
        for (int i = 0; i < names.size(); i++) {
            scope.set(names.get(i), elements.get(i));
        }
    }
}
