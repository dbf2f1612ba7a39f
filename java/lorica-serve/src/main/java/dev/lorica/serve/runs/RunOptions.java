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
import java.util.stream.Collectors;

/** The options of a run as a page gives them, checked, and as the program takes them. */
public final class RunOptions {
    private static final int MOST_VALUES = 200;
    private static final int MOST_LETTERS = 20_000;

    private static final int MOST_BYTES = 60 << 10; // what the program reads of a file of options

    private final Map<String, List<String>> values;
    private final Set<String> flags;

    private RunOptions(Map<String, List<String>> values, Set<String> flags) {
        this.values = values;
        this.flags = flags;
    }

    /**
     * @param given by name without dashes
     * @param model what {@code model} means where it is not said, or said by its name
     * @throws InvalidArgumentException for an option that a page may not set, or a file that may not be read
     */
    static RunOptions of(
            Map<String, List<String>> given, RunProgram program, RunFolders folders, String modelName, Path model) {
        Map<String, RunProgram.Option> known = new LinkedHashMap<>();
        program.options().forEach(option -> known.put(option.name(), option));
        Map<String, List<String>> values = new LinkedHashMap<>();
        Set<String> flags = new HashSet<>();
        List<String> models = given.getOrDefault("model", List.of());
        boolean served =
                models.isEmpty() || models.equals(List.of(modelName)) || models.equals(List.of(model.toString()));
        values.put("model", List.of((served ? model : folders.readable("model", models.get(0))).toString()));
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
            List<String> resolved = new ArrayList<>();
            for (String value : all) {
                resolved.add(option.file() ? file(name, value, folders) : value);
            }
            values.put(name, resolved);
        });
        RunOptions options = new RunOptions(values, flags);
        if (options.yaml(folders.output()).getBytes(StandardCharsets.UTF_8).length > MOST_BYTES) {
            throw new InvalidArgumentException("the options have more than " + (MOST_BYTES >> 10) + " KiB");
        }
        return options;
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

    /** One option a line; JSON is YAML. */
    public String yaml(Path output) {
        StringBuilder yaml = new StringBuilder();
        Map<String, List<String>> all = new LinkedHashMap<>(values);
        all.put("output", List.of(output.toString()));
        all.forEach((name, list) -> {
            yaml.append(name.replace('-', '_')).append(": ");
            List<String> written = list.stream().map(RunOptions::scalar).toList();
            yaml.append(written.size() == 1 ? written.get(0) : written.toString());
            yaml.append('\n');
        });
        return yaml.toString();
    }

    private static String scalar(String text) {
        boolean plain = text.matches("[A-Za-z/][A-Za-z0-9_/.-]*|-?[0-9]+(\\.[0-9]+)?([eE]-?[0-9]+)?")
                && !text.matches("(?i)y|n|yes|no|on|off|null");
        return plain ? text : TextNode.valueOf(text).toString();
    }

    /** As it is typed into a shell. */
    public String commandLine(RunProgram program, Path output) {
        Map<String, List<String>> all = new LinkedHashMap<>(values);
        all.put("output", List.of(output.toString()));
        List<String> words = new ArrayList<>();
        all.forEach((name, list) ->
                list.forEach(value -> words.add("--" + name + (flags.contains(name) ? "" : " " + quote(value)))));
        return program.name() + " train " + words.stream().collect(Collectors.joining(" \\\n    "));
    }

    private static String quote(String word) {
        return word.matches("[A-Za-z0-9_@%+=:,./-]+") ? word : "'" + word.replace("'", "'\\''") + "'";
    }
}
