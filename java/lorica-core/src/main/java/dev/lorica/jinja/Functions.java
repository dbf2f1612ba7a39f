package dev.lorica.jinja;

import java.time.DayOfWeek;
import java.time.LocalDate;
import java.time.format.TextStyle;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** What a template finds without being given it. */
final class Functions {
    private Functions() {}

    static Map<String, Object> global(Scope.Run run) {
        Map<String, Object> functions = new HashMap<>();
        define(functions, "range", Functions::range);
        define(functions, "dict", (values, named) -> {
            Map<Object, Object> map = new LinkedHashMap<>();
            for (Object value : values) {
                ((Map<?, ?>) requireMap(value)).forEach(map::put);
            }
            map.putAll(named);
            return map;
        });
        define(functions, "namespace", (values, named) -> {
            Namespace namespace = new Namespace();
            for (Object value : values) {
                requireMap(value).forEach((key, element) -> namespace.set(Values.text(key), element));
            }
            named.forEach(namespace::set);
            return namespace;
        });
        define(functions, "raise_exception", (values, named) -> {
            throw JinjaException.raised(
                    Values.text(new Arguments("raise_exception", values, named).require(0, "message")));
        });
        define(
                functions,
                "strftime_now",
                (values, named) ->
                        strftime(new Arguments("strftime_now", values, named).text(0, "format", ""), run.date));
        return functions;
    }

    private static void define(Map<String, Object> functions, String name, Callable function) {
        functions.put(name, function);
    }

    private static Map<?, ?> requireMap(Object value) {
        if (value instanceof Map<?, ?> map) {
            return map;
        }
        throw new JinjaException(Values.repr(value) + " is no dictionary");
    }

    private static Object range(List<Object> values, Map<String, Object> named) {
        if (values.isEmpty() || values.size() > 3) {
            throw new JinjaException("range takes one to three numbers");
        }
        long begin = values.size() == 1 ? 0 : Values.toLong(values.get(0));
        long end = Values.toLong(values.get(values.size() == 1 ? 0 : 1));
        long step = values.size() < 3 ? 1 : Values.toLong(values.get(2));
        if (step == 0) {
            throw new JinjaException("range with step 0");
        }
        List<Object> numbers = new ArrayList<>();
        for (long i = begin; step > 0 ? i < end : i > end; i += step) {
            numbers.add(i);
            Values.checkElements(numbers.size());
        }
        return numbers;
    }

    private static String strftime(String format, LocalDate date) {
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < format.length(); i++) {
            char c = format.charAt(i);
            if (c != '%' || i + 1 == format.length()) {
                text.append(c);
                continue;
            }
            char directive = format.charAt(++i);
            boolean bare = directive == '-' && i + 1 < format.length();
            if (bare) {
                directive = format.charAt(++i);
            }
            String part = directive(directive, date);
            text.append(bare && part.startsWith("0") && part.length() > 1 ? part.substring(1) : part);
        }
        return text.toString();
    }

    private static String directive(char directive, LocalDate date) {
        DayOfWeek day = date.getDayOfWeek();
        return switch (directive) {
            case 'd' -> two(date.getDayOfMonth());
            case 'm' -> two(date.getMonthValue());
            case 'y' -> two(date.getYear() % 100);
            case 'Y' -> Integer.toString(date.getYear());
            case 'j' -> String.format(Locale.ROOT, "%03d", date.getDayOfYear());
            case 'b', 'h' -> date.getMonth().getDisplayName(TextStyle.SHORT, Locale.US);
            case 'B' -> date.getMonth().getDisplayName(TextStyle.FULL, Locale.US);
            case 'a' -> day.getDisplayName(TextStyle.SHORT, Locale.US);
            case 'A' -> day.getDisplayName(TextStyle.FULL, Locale.US);
            case 'u' -> Integer.toString(day.getValue());
            case 'w' -> Integer.toString(day.getValue() % 7);
            case 'F' -> date.toString();
            // A date has no time of day: it is noon.
            case 'H', 'I' -> "12";
            case 'M', 'S' -> "00";
            case 'p' -> "PM";
            case 'Z', 'z' -> "";
            case '%' -> "%";
            default -> throw new JinjaException("strftime_now: %" + directive + " is not known");
        };
    }

    private static String two(int number) {
        return String.format(Locale.ROOT, "%02d", number);
    }
}
