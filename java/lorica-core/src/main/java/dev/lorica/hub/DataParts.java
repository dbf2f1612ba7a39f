package dev.lorica.hub;

import dev.lorica.exceptions.HubException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The parts of a data set by the names of its Parquet files: {@code data/train-00000-of-00002.parquet},
 * {@code default/train/0000.parquet}, {@code train.parquet}. A folder around it is what Hugging Face calls a configuration.
 */
final class DataParts {
    private static final String PARQUET = ".parquet";
    private static final Pattern SHARD = Pattern.compile("(.+?)-\\d{5}-of-\\d{5}(?:-[0-9a-f]+)?");
    private static final Pattern NUMBER = Pattern.compile("\\d+");

    private DataParts() {}

    static boolean isParquet(String path) {
        return path.endsWith(PARQUET);
    }

    /** The files of the part that is named, or of the one that is meant when none is. */
    static List<String> choose(HubName name, List<String> files) {
        Map<String, List<String>> parts = new TreeMap<>();
        for (String file : files) {
            if (isParquet(file)) {
                parts.computeIfAbsent(part(file), part -> new ArrayList<>()).add(file);
            }
        }
        String wanted = name.file() == null ? "train" : name.file();
        for (String candidate : List.of(wanted, "default/" + wanted)) {
            if (parts.containsKey(candidate)) {
                return sorted(parts.get(candidate));
            }
        }
        List<String> named = parts.keySet().stream()
                .filter(part -> part.endsWith("/" + wanted))
                .toList();
        if (named.size() == 1) {
            return sorted(parts.get(named.get(0)));
        }
        if (named.isEmpty() && name.file() == null && parts.size() == 1) {
            return sorted(parts.values().iterator().next());
        }
        String which = named.isEmpty()
                ? " has no part \"" + wanted + "\""
                : " has " + named.size() + " parts \"" + wanted + "\"";
        throw new HubException(name.with(null).inWords() + which + "; there are "
                + Choice.listed(List.copyOf(parts.keySet())) + ", to be named as " + name.inWords() + ":PART");
    }

    private static List<String> sorted(List<String> files) {
        return files.stream().sorted().toList();
    }

    /** {@code train}, or with its configuration {@code french/train}. */
    private static String part(String file) {
        List<String> path = new ArrayList<>(
                List.of(file.substring(0, file.length() - PARQUET.length()).split("/")));
        String last = path.remove(path.size() - 1);
        Matcher shard = SHARD.matcher(last);
        if (shard.matches()) {
            last = shard.group(1);
        } else if (NUMBER.matcher(last).matches() && !path.isEmpty()) {
            last = path.remove(path.size() - 1);
        }
        // What the hub converts of a set that is too large for it whole.
        last = last.startsWith("partial-") ? last.substring("partial-".length()) : last;
        path.removeIf("data"::equals);
        return path.isEmpty() ? last : String.join("/", path) + "/" + last;
    }
}
