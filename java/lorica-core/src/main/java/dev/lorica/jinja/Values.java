package dev.lorica.jinja;

import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;

/** What Python does with values: truth, text form, comparison, arithmetic, elements, slices. */
final class Values {
    private static final int MAX_ELEMENTS = 1_000_000;

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
            throw new JinjaException("the number " + digits + " is too large");
        }
    }

    static long toLong(Object value) {
        if (isInteger(value)) {
            return ((Number) value).longValue();
        }
        if (value instanceof Boolean b) {
            return b ? 1 : 0;
        }
        throw value instanceof Undefined undefined
                ? undefined.error()
                : new JinjaException(repr(value) + " is no integer");
    }

    // ---- text ----

    /** Python's {@code str()}. */
    static String text(Object value) {
        if (value instanceof String s) {
            return s;
        }
        return value instanceof Undefined ? "" : repr(value);
    }

    /** Python's {@code repr()}. */
    static String repr(Object value) {
        StringBuilder out = new StringBuilder();
        repr(value, out);
        return out.toString();
    }

    private static void repr(Object value, StringBuilder out) {
        Scope.checkLength(out.length());
        if (value == null) {
            out.append("None");
        } else if (value instanceof Boolean b) {
            out.append(b ? "True" : "False");
        } else if (value instanceof String s) {
            quote(s, out);
        } else if (value instanceof Collection<?> list) {
            boolean tuple = list instanceof Tuple;
            String separator = "";
            out.append(tuple ? '(' : '[');
            for (Object element : list) {
                out.append(separator);
                repr(element, out);
                separator = ", ";
            }
            out.append(tuple ? list.size() == 1 ? ",)" : ")" : "]");
        } else if (value instanceof Map<?, ?> map) {
            String separator = "";
            out.append('{');
            for (Map.Entry<?, ?> entry : map.entrySet()) {
                out.append(separator);
                repr(entry.getKey(), out);
                out.append(": ");
                repr(entry.getValue(), out);
                separator = ", ";
            }
            out.append('}');
        } else if (value instanceof Number number) {
            out.append(number(number));
        } else {
            out.append(
                    value instanceof Undefined
                            ? "Undefined"
                            : "<" + value.getClass().getSimpleName() + ">");
        }
    }

    private static void quote(String text, StringBuilder out) {
        char mark = text.indexOf('\'') >= 0 && text.indexOf('"') < 0 ? '"' : '\'';
        out.append(mark);
        text.codePoints().forEach(c -> {
            switch (c) {
                case '\n' -> out.append("\\n");
                case '\r' -> out.append("\\r");
                case '\t' -> out.append("\\t");
                case '\\' -> out.append("\\\\");
                default -> {
                    if (c == mark) {
                        out.append('\\').append(mark);
                    } else if (c < 0x20 || c == 0x7f || c > 0x7f && !isPrintable(c)) {
                        out.append(
                                c < 0x100
                                        ? String.format("\\x%02x", c)
                                        : c < 0x10000 ? String.format("\\u%04x", c) : String.format("\\U%08x", c));
                    } else {
                        out.appendCodePoint(c);
                    }
                }
            }
        });
        out.append(mark);
    }

    private static boolean isPrintable(int c) {
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

    /** What Python counts as white space in {@code str.strip}. */
    static boolean isSpace(int c) {
        return c >= 0x09 && c <= 0x0d
                || c >= 0x1c && c <= 0x20
                || c == 0x85
                || c == 0xa0
                || c == 0x1680
                || c >= 0x2000 && c <= 0x200a
                || c == 0x2028
                || c == 0x2029
                || c == 0x202f
                || c == 0x205f
                || c == 0x3000;
    }

    /** @param characters what is taken off; {@code null}: white space */
    static String strip(String text, String characters, boolean left, boolean right) {
        int from = 0;
        int to = text.length();
        while (left && from < to && isStripped(text.charAt(from), characters)) {
            from++;
        }
        while (right && to > from && isStripped(text.charAt(to - 1), characters)) {
            to--;
        }
        return text.substring(from, to);
    }

    private static boolean isStripped(char c, String characters) {
        return characters == null ? isSpace(c) : characters.indexOf(c) >= 0;
    }

    // ---- comparison ----

    static boolean equal(Object a, Object b) {
        if (a instanceof Undefined && b instanceof Undefined) {
            return true;
        }
        if (isNumeric(a) && isNumeric(b)) {
            return isReal(a) || isReal(b) ? toDouble(a) == toDouble(b) : toLong(a) == toLong(b);
        }
        if (a instanceof List<?> x && b instanceof List<?> y) {
            if (x.size() != y.size()) {
                return false;
            }
            for (int i = 0; i < x.size(); i++) {
                if (!equal(x.get(i), y.get(i))) {
                    return false;
                }
            }
            return true;
        }
        if (a instanceof Map<?, ?> x && b instanceof Map<?, ?> y) {
            return x.size() == y.size()
                    && x.entrySet().stream()
                            .allMatch(entry ->
                                    y.containsKey(entry.getKey()) && equal(entry.getValue(), y.get(entry.getKey())));
        }
        return a == null ? b == null : a.equals(b);
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

    static int compare(Object a, Object b) {
        if (isNumeric(a) && isNumeric(b)) {
            return isReal(a) || isReal(b)
                    ? Double.compare(toDouble(a), toDouble(b))
                    : Long.compare(toLong(a), toLong(b));
        }
        if (a instanceof String x && b instanceof String y) {
            return compareCodePoints(x, y);
        }
        if (a instanceof List<?> x && b instanceof List<?> y) {
            for (int i = 0; i < Math.min(x.size(), y.size()); i++) {
                if (!equal(x.get(i), y.get(i))) {
                    return compare(x.get(i), y.get(i));
                }
            }
            return Integer.compare(x.size(), y.size());
        }
        if (a instanceof Undefined || b instanceof Undefined) {
            throw ((Undefined) (a instanceof Undefined ? a : b)).error();
        }
        throw new JinjaException(repr(a) + " and " + repr(b) + " cannot be compared");
    }

    private static int compareCodePoints(String a, String b) {
        int[] x = a.codePoints().toArray();
        int[] y = b.codePoints().toArray();
        for (int i = 0; i < Math.min(x.length, y.length); i++) {
            if (x[i] != y[i]) {
                return Integer.compare(x[i], y[i]);
            }
        }
        return Integer.compare(x.length, y.length);
    }

    static boolean contains(Object container, Object value) {
        if (container instanceof String text) {
            if (value instanceof String part) {
                return text.contains(part);
            }
            throw new JinjaException("only a text can be in a text, not " + repr(value));
        }
        if (container instanceof Map<?, ?> map) {
            return map.containsKey(value);
        }
        for (Object element : iterate(container)) {
            if (equal(element, value)) {
                return true;
            }
        }
        return false;
    }

    // ---- arithmetic ----

    static Object add(String a, String b) {
        Scope.checkLength((long) a.length() + b.length());
        return a.concat(b);
    }

    static Object arithmetic(String sign, Object a, Object b) {
        if (a instanceof Undefined || b instanceof Undefined) {
            throw ((Undefined) (a instanceof Undefined ? a : b)).error();
        }
        if (sign.equals("+") && a instanceof String x && b instanceof String y) {
            return add(x, y);
        }
        if (sign.equals("+") && a instanceof List<?> x && b instanceof List<?> y) {
            checkElements((long) x.size() + y.size());
            List<Object> both = new ArrayList<>(x);
            both.addAll(y);
            return both;
        }
        if (sign.equals("*") && isInteger(b) && (a instanceof String || a instanceof List)) {
            return repeat(a, toLong(b));
        }
        if (sign.equals("*") && isInteger(a) && (b instanceof String || b instanceof List)) {
            return repeat(b, toLong(a));
        }
        if (!isNumeric(a) || !isNumeric(b)) {
            throw new JinjaException("\"" + sign + "\" is not for " + kind(a) + " and " + kind(b));
        }
        try {
            return isReal(a) || isReal(b) || sign.equals("/")
                    ? real(sign, toDouble(a), toDouble(b))
                    : integral(sign, toLong(a), toLong(b));
        } catch (ArithmeticException e) {
            throw new JinjaException(repr(a) + " " + sign + " " + repr(b) + ": "
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

    private static Object repeat(Object value, long times) {
        int n = (int) Math.max(0, Math.min(times, Integer.MAX_VALUE));
        if (value instanceof String text) {
            Scope.checkLength((long) text.length() * n);
            return text.repeat(n);
        }
        List<?> list = (List<?>) value;
        checkElements((long) list.size() * n);
        List<Object> repeated = new ArrayList<>();
        for (int i = 0; i < n && !list.isEmpty(); i++) {
            repeated.addAll(list);
        }
        return repeated;
    }

    static void checkElements(long count) {
        if (count > MAX_ELEMENTS) {
            throw new JinjaException("a list of more than " + MAX_ELEMENTS + " elements");
        }
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
    static List<Object> iterate(Object value) {
        if (value instanceof List<?> list) {
            @SuppressWarnings("unchecked")
            List<Object> elements = (List<Object>) list;
            return elements;
        }
        if (value instanceof Collection<?> elements) {
            return new ArrayList<>(elements);
        }
        if (value instanceof Map<?, ?> map) {
            return new ArrayList<>(map.keySet());
        }
        if (value instanceof String text) {
            List<Object> characters = new ArrayList<>(text.length());
            text.codePoints().forEach(c -> characters.add(Character.toString(c)));
            return characters;
        }
        if (value instanceof Undefined) {
            return List.of();
        }
        throw new JinjaException(repr(value) + " has no elements");
    }

    static long length(Object value) {
        if (value instanceof String text) {
            return text.codePointCount(0, text.length());
        }
        return iterate(value).size();
    }

    /** {@code value.name}: a method or what the value offers by that name, else the element with that key. */
    static Object attribute(Object value, String name) {
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

    /** {@code value[key]}: the element, else what the value offers by that name. */
    static Object item(Object value, Object key) {
        if (value instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (value instanceof Map<?, ?> map && map.containsKey(key)) {
            return map.get(key);
        }
        if ((value instanceof String || value instanceof List) && (isInteger(key) || key instanceof Boolean)) {
            List<Object> elements = iterate(value);
            long index = toLong(key);
            long at = index < 0 ? index + elements.size() : index;
            return at >= 0 && at < elements.size() ? elements.get((int) at) : new Undefined("element " + index);
        }
        return key instanceof String name ? attribute(value, name) : new Undefined(text(key));
    }

    /** Python's slice; {@code null}: not given. */
    static Object slice(Object value, Object from, Object to, Object by) {
        if (value instanceof Undefined undefined) {
            throw undefined.error();
        }
        if (!(value instanceof String) && !(value instanceof List)) {
            throw new JinjaException(repr(value) + " cannot be sliced");
        }
        List<Object> elements = iterate(value);
        int n = elements.size();
        long step = by == null ? 1 : toLong(by);
        if (step == 0) {
            throw new JinjaException("a slice with step 0");
        }
        long begin = from == null ? (step > 0 ? 0 : n - 1) : bound(toLong(from), n, step);
        long end = to == null ? (step > 0 ? n : -1) : bound(toLong(to), n, step);
        List<Object> part = new ArrayList<>();
        for (long i = begin; step > 0 ? i < end : i > end; i += step) {
            part.add(elements.get((int) i));
        }
        return value instanceof String ? joined(part) : part;
    }

    private static long bound(long index, int n, long step) {
        long at = index < 0 ? index + n : index;
        return step > 0 ? Math.max(0, Math.min(at, n)) : Math.max(-1, Math.min(at, n - 1));
    }

    private static String joined(List<Object> characters) {
        StringBuilder text = new StringBuilder();
        characters.forEach(c -> text.append((String) c));
        return text.toString();
    }

    /** Assigns to one name, or the elements of {@code value} to several. */
    static void unpack(List<String> names, Object value, Scope scope) {
        if (names.size() == 1) {
            scope.set(names.get(0), value);
            return;
        }
        List<Object> elements = iterate(value);
        if (elements.size() != names.size()) {
            throw new JinjaException(elements.size() + " values for " + String.join(", ", names));
        }
        for (int i = 0; i < names.size(); i++) {
            scope.set(names.get(i), elements.get(i));
        }
    }
}
