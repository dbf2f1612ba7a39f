package dev.lorica.cli;

import java.math.BigDecimal;
import java.math.MathContext;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** What the runs of a sweep differ in: options of {@code train}, each with values or with a range. */
final class Grid {
    /** Of no meaning for one run among several. */
    private static final Set<String> NEVER =
            Set.of("--output", "--overwrite", "--resume", "--config", "--json", "--verbose", "--help", "--logging-dir");

    private static final int MOST_RUNS = 10_000;
    private static final Pattern RANGE =
            Pattern.compile("(-?[0-9.]+(?:[eE][-+]?[0-9]+)?)\\.\\.(-?[0-9.]+(?:[eE][-+]?[0-9]+)?)");

    /** Values to choose from, or what lies between two numbers. */
    private record Dimension(String option, List<String> values, double low, double high, boolean whole) {
        boolean isRange() {
            return values.isEmpty();
        }

        /** Between numbers above 0 that are 10 times apart or more, every order of magnitude is as likely as another. */
        String draw(Random random) {
            if (!isRange()) {
                return values.get(random.nextInt(values.size()));
            }
            double at = random.nextDouble();
            if (whole) {
                return Long.toString((long) low + (long) Math.floor(at * ((long) high - (long) low + 1)));
            }
            double value = low > 0 && high >= 10 * low ? low * Math.pow(high / low, at) : low + at * (high - low);
            return new BigDecimal(value)
                    .round(new MathContext(3))
                    .stripTrailingZeros()
                    .toString();
        }
    }

    private final List<Dimension> dimensions = new ArrayList<>();

    /** @param texts {@code lora-r=4,8}; with {@code |} where values have commas; {@code learning-rate=1e-5..1e-3} */
    Grid(List<String> texts) {
        Set<String> seen = new LinkedHashSet<>();
        for (String text : texts) {
            int equals = text.indexOf('=');
            if (equals < 1 || equals + 1 == text.length()) {
                throw new IllegalArgumentException(
                        "--grid cannot be \"" + text + "\"; an option with values is meant, as lora-r=4,8,16");
            }
            String option = Spelling.ours(text.substring(0, equals).strip().replaceFirst("^--?", ""));
            if (NEVER.contains(option)) {
                throw new IllegalArgumentException("--grid cannot vary " + option);
            }
            if (!seen.add(option)) {
                throw new IllegalArgumentException("--grid names " + option + " twice");
            }
            dimensions.add(dimension(option, text.substring(equals + 1).strip()));
        }
    }

    private static Dimension dimension(String option, String text) {
        Matcher range = RANGE.matcher(text);
        if (!range.matches()) {
            List<String> values = Arrays.stream(text.split(text.contains("|") ? "\\|" : ","))
                    .map(String::strip)
                    .filter(value -> !value.isEmpty())
                    .distinct()
                    .toList();
            if (values.isEmpty()) {
                throw new IllegalArgumentException("--grid gives " + option + " no values");
            }
            return new Dimension(option, values, 0, 0, false);
        }
        try {
            double low = Double.parseDouble(range.group(1));
            double high = Double.parseDouble(range.group(2));
            boolean whole = (range.group(1) + range.group(2)).matches("[-0-9]{1,18}") && Math.abs(high) < 1e9;
            if (low < high) {
                return new Dimension(option, List.of(), low, high, whole);
            }
        } catch (NumberFormatException e) {
            // says the same
        }
        throw new IllegalArgumentException(
                "--grid gives " + option + " the range " + text + "; numbers are meant, as 1e-5..1e-3");
    }

    /** Every combination, the last option varying fastest. */
    List<Map<String, String>> all() {
        long count = 1;
        for (Dimension dimension : dimensions) {
            if (dimension.isRange()) {
                throw new IllegalArgumentException("--grid gives " + dimension.option() + " a range; say how many runs"
                        + " are to be drawn from it with --random N");
            }
            count = Math.min(MOST_RUNS + 1L, count * dimension.values().size());
        }
        requireFew(count);
        List<Map<String, String>> runs = new ArrayList<>(List.of(Map.of()));
        for (Dimension dimension : dimensions) {
            List<Map<String, String>> more = new ArrayList<>();
            for (Map<String, String> run : runs) {
                for (String value : dimension.values()) {
                    Map<String, String> next = new LinkedHashMap<>(run);
                    next.put(dimension.option(), value);
                    more.add(next);
                }
            }
            runs = more;
        }
        return runs;
    }

    /** So many different ones, drawn at random; fewer where there are no more. */
    List<Map<String, String>> drawn(int count, long seed) {
        if (count < 1) {
            throw new IllegalArgumentException("--random cannot be " + count + "; it is 1 or more");
        }
        requireFew(count);
        Random random = new Random(seed);
        Set<Map<String, String>> runs = new LinkedHashSet<>();
        for (int tries = 0; runs.size() < count && tries < 100 * count; tries++) {
            Map<String, String> run = new LinkedHashMap<>();
            for (Dimension dimension : dimensions) {
                run.put(dimension.option(), dimension.draw(random));
            }
            runs.add(run);
        }
        return List.copyOf(runs);
    }

    private static void requireFew(long count) {
        if (count > MOST_RUNS) {
            throw new IllegalArgumentException("a sweep has at most " + MOST_RUNS + " runs; draw some with --random N");
        }
    }
}
