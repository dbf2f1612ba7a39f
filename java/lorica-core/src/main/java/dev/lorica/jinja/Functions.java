package dev.lorica.jinja;

import java.math.BigInteger;
import java.time.DayOfWeek;
import java.time.LocalDate;
import java.time.format.TextStyle;
import java.util.AbstractList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** What a template finds without being given it. */
final class Functions {
    private Functions() {}

    static Map<String, Object> global(Run run) {
        Map<String, Object> functions = new HashMap<>();
        define(functions, "range", Functions::range);
        define(functions, "dict", arguments -> {
            Map<Object, Object> map = new LinkedHashMap<>();
            for (Object value : arguments.values()) {
                run.elements(4L * requireMap(run, value).size());
                requireMap(run, value).forEach(map::put);
            }
            map.putAll(arguments.named());
            return map;
        });
        define(functions, "namespace", arguments -> {
            Namespace namespace = new Namespace();
            run.elements(8);
            for (Object value : arguments.values()) {
                run.elements(4L * requireMap(run, value).size());
                requireMap(run, value).forEach((key, element) -> namespace.set(Values.text(run, key), element));
            }
            arguments.named().forEach(namespace::set);
            return namespace;
        });
        define(functions, "raise_exception", arguments -> {
            throw JinjaException.raised(Values.text(run, arguments.require(0, "message")));
        });
        define(functions, "strftime_now", arguments -> strftime(run, arguments.requireText(0, "format"), run.date));
        return functions;
    }

    private static void define(Map<String, Object> functions, String name, Callable function) {
        functions.put(name, (Callable) arguments -> function.call(arguments.behind(0, name)));
    }

    private static Map<?, ?> requireMap(Run run, Object value) {
        if (value instanceof Map<?, ?> map) {
            return map;
        }
        throw new JinjaException(Values.shown(run, value) + " is no dictionary");
    }

    private static Object range(Arguments arguments) {
        Run run = arguments.run();
        List<Object> values = arguments.values();
        if (values.isEmpty() || values.size() > 3) {
            throw new JinjaException("range takes one to three numbers");
        }
        long begin = values.size() == 1 ? 0 : Values.toLong(run, values.get(0));
        long end = Values.toLong(run, values.get(values.size() == 1 ? 0 : 1));
        long step = values.size() < 3 ? 1 : Values.toLong(run, values.get(2));
        if (step == 0) {
            throw new JinjaException("range with step 0");
        }
        return new Range(begin, end, step);
    }

    /** Numbers that are made when they are looked at: a loop over many takes no memory. */
    private static final class Range extends AbstractList<Object> {
        private final long begin;
        private final long step;
        private final int size;

        Range(long begin, long end, long step) {
            this.begin = begin;
            this.step = step;
            BigInteger distance = BigInteger.valueOf(end).subtract(BigInteger.valueOf(begin));
            BigInteger stride = BigInteger.valueOf(step);
            BigInteger count = distance.signum() == stride.signum()
                    ? distance.abs()
                            .subtract(BigInteger.ONE)
                            .divide(stride.abs())
                            .add(BigInteger.ONE)
                    : BigInteger.ZERO;
            size = count.min(BigInteger.valueOf(Integer.MAX_VALUE)).intValue();
            Run.checkElements(size);
        }

        @Override
        public Object get(int index) {
            return begin + index * step;
        }

        @Override
        public int size() {
            return size;
        }
    }

    private static String strftime(Run run, String format, LocalDate date) {
        run.walk(4L * format.length());
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < format.length(); i++) {
            char c = format.charAt(i);
            if (c != '%' || i + 1 == format.length()) {
                run.append(text, c);
                continue;
            }
            char directive = format.charAt(++i);
            boolean bare = directive == '-' && i + 1 < format.length();
            if (bare) {
                directive = format.charAt(++i);
            }
            String part = directive(directive, date);
            run.append(text, bare && part.startsWith("0") && part.length() > 1 ? part.substring(1) : part);
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
