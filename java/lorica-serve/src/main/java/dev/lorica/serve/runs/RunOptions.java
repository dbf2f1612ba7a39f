package dev.lorica.serve.runs;

import com.fasterxml.jackson.databind.node.TextNode;
import dev.lorica.exceptions.InvalidArgumentException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.UnaryOperator;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/** The options of a run as a page gives them, checked, and as the program takes them. */
public final class RunOptions {
    private static final int MOST_VALUES = 200;
    private static final int MOST_LETTERS = 20_000;

    private static final int MOST_BYTES = 60 << 10; // what the program reads of a file of options

    private final Map<String, List<String>> values;
    private final Set<String> flags;
    /** Those of the names whose values are paths. */
    private final Set<String> files;

    private RunOptions(Map<String, List<String>> values, Set<String> flags, Set<String> files) {
        this.values = values;
        this.flags = flags;
        this.files = files;
    }

    /**
     * @param given     by name without dashes
     * @param modelName what pages call the model that is served, which is meant where none is named
     * @throws InvalidArgumentException for an option that a page may not set, or a file that may not be read
     */
    static RunOptions of(Map<String, List<String>> given, RunProgram program, RunFolders folders, String modelName) {
        Map<String, RunProgram.Option> known = new LinkedHashMap<>();
        program.options().forEach(option -> known.put(option.name(), option));
        Map<String, List<String>> values = new LinkedHashMap<>();
        Set<String> flags = new HashSet<>();
        Set<String> files = new HashSet<>(Set.of("model", "output"));
        values.put("model", List.of(model(given.getOrDefault("model", List.of()), folders, modelName)));
        given.forEach((name, all) -> {
            RunProgram.Option option = known.get(name);
            if (option == null) {
                throw new InvalidArgumentException("the option " + RunFolders.cut(name)
                        + " cannot be set here; what a page may set is what its form shows");
            }
            if (all.size() > (option.many() ? MOST_VALUES : 1)
                    || all.stream().anyMatch(value -> value == null || value.length() > MOST_LETTERS)) {
                throw new InvalidArgumentException(
                        "the option " + name + " has too many values, or one that is too long");
            }
            if (name.equals("model") || all.isEmpty()) {
                return;
            }
            if (option.flag()) {
                if (!all.equals(List.of("true")) && !all.equals(List.of("false"))) {
                    throw new InvalidArgumentException("the option " + name + " is true or false");
                }
                if (all.equals(List.of("true"))) {
                    values.put(name, all);
                    flags.add(name);
                }
                return;
            }
            if (option.file()) {
                files.add(name);
            }
            List<String> resolved = new ArrayList<>();
            for (String value : all) {
                resolved.add(option.file() ? file(name, value, folders) : value);
            }
            values.put(name, resolved);
        });
        RunOptions options = new RunOptions(values, flags, files);
        if (options.yaml(folders.output()).getBytes(StandardCharsets.UTF_8).length > MOST_BYTES) {
            throw new InvalidArgumentException("the options have more than " + (MOST_BYTES >> 10) + " KiB");
        }
        return options;
    }

    /** The served one by its name, as its file is called, or as pages call that; else one of the folders. */
    private static String model(List<String> named, RunFolders folders, String modelName) {
        Path served = folders.model();
        if (named.isEmpty() || named.equals(List.of(modelName)) || named.equals(List.of(served.toString()))) {
            return served.toString();
        }
        try {
            return folders.readable("model", named.get(0)).toString();
        } catch (InvalidArgumentException e) {
            if (named.get(0).equals(folders.shown(served))) {
                return served.toString();
            }
            throw e;
        }
    }

    /** Of data a share may stand behind: {@code questions.csv:0.5}; a template may be one that has a name. */
    private static String file(String name, String value, RunFolders folders) {
        if (name.endsWith("template") && value.matches("[A-Za-z0-9_-]*")) {
            return value;
        }
        String weight = "";
        String path = value;
        if (name.equals("data") && value.matches("(?s).+:[0-9]+(\\.[0-9]+)?")) {
            int colon = value.lastIndexOf(':');
            weight = value.substring(colon);
            path = value.substring(0, colon);
        }
        return folders.readable(name, path) + weight;
    }

    private Map<String, List<String>> all(Path output, UnaryOperator<String> paths) {
        Map<String, List<String>> all = new LinkedHashMap<>(values);
        all.put("output", List.of(output.toString()));
        all.replaceAll(
                (name, list) -> files.contains(name) ? list.stream().map(paths).toList() : list);
        return all;
    }

    /**
     * {@return the options as a file: one a line; JSON is YAML}
     *
     * @param output the folder of the run
     */
    public String yaml(Path output) {
        return yaml(output, UnaryOperator.identity());
    }

    /**
     * {@return the same}
     *
     * @param output the folder of the run
     * @param paths  how paths are written
     */
    public String yaml(Path output, UnaryOperator<String> paths) {
        StringBuilder yaml = new StringBuilder();
        all(output, paths).forEach((name, list) -> {
            yaml.append(name.replace('-', '_')).append(": ");
            List<String> written = list.stream().map(RunOptions::scalar).toList();
            yaml.append(written.size() == 1 ? written.get(0) : written.toString());
            yaml.append('\n');
        });
        return yaml.toString();
    }

    /** A file of {@link #yaml} with another output. */
    static String withOutput(String yaml, Path output) {
        return yaml.replaceAll("(?m)^output: .*$", Matcher.quoteReplacement("output: " + scalar(output.toString())));
    }

    /** A line of {@link #commandLine} with another name of the run. */
    static String commandTo(String command, String name, String to) {
        return command.replaceAll("(?m)(--output (?:.*/)?)" + Pattern.quote(name) + "$", "$1" + to);
    }

    private static String scalar(String text) {
        boolean plain = text.matches("[A-Za-z/][A-Za-z0-9_/.-]*|-?[0-9]+(\\.[0-9]+)?([eE]-?[0-9]+)?")
                && !text.matches("(?i)y|n|yes|no|on|off|null");
        return plain ? text : TextNode.valueOf(text).toString();
    }

    /**
     * {@return the options as they are typed into a shell}
     *
     * @param program how it is called
     * @param output  the folder of the run
     * @param paths how paths are written
     */
    public String commandLine(RunProgram program, Path output, UnaryOperator<String> paths) {
        List<String> words = new ArrayList<>();
        all(output, paths)
                .forEach((name, list) -> list.forEach(
                        value -> words.add("--" + name + (flags.contains(name) ? "" : " " + quote(value)))));
        return program.name() + " train " + words.stream().collect(Collectors.joining(" \\\n    "));
    }

    private static String quote(String word) {
        return word.matches("[A-Za-z0-9_@%+=:,./-]+") ? word : "'" + word.replace("'", "'\\''") + "'";
    }
}
