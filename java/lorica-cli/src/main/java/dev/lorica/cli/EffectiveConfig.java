package dev.lorica.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.dataformat.yaml.YAMLGenerator;
import com.fasterxml.jackson.dataformat.yaml.YAMLMapper;
import dev.lorica.files.AtomicFile;
import dev.lorica.hub.HubName;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;

/**
 * All options of a run with the values that they had, saved beside its adapter: {@code lorica train --config} with this file
 * does the same again.
 */
final class EffectiveConfig {
    static final String FILE_NAME = "train_config.yaml";

    /** What is not about the run but about this call of the program. */
    private static final Set<String> LEFT_OUT = Set.of(
            "--config", "--resume", "--overwrite", "--json", "--verbose", "--help", "--dry-run", "--show-examples");

    private static final YAMLMapper YAML = YAMLMapper.builder()
            .disable(YAMLGenerator.Feature.WRITE_DOC_START_MARKER)
            .enable(YAMLGenerator.Feature.MINIMIZE_QUOTES)
            .enable(YAMLGenerator.Feature.ALWAYS_QUOTE_NUMBERS_AS_STRINGS)
            .disable(YAMLGenerator.Feature.SPLIT_LINES)
            .build();

    private EffectiveConfig() {}

    static void write(CommandSpec command, Path folder) {
        Path file = folder.resolve(FILE_NAME);
        try {
            AtomicFile.write(file, yaml(command).getBytes(StandardCharsets.UTF_8));
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }

    static String yaml(CommandSpec command) throws JsonProcessingException {
        Map<String, Object> values = new LinkedHashMap<>();
        for (OptionSpec option : command.options()) {
            Object value = option.getValue();
            boolean nothing = value == null
                    || value instanceof Collection<?> list && list.isEmpty()
                    || value instanceof Map<?, ?> map && map.isEmpty();
            if (!nothing && !LEFT_OUT.contains(option.longestName())) {
                values.put(option.longestName().substring(2).replace('-', '_'), plain(value));
            }
        }
        return "# Options of lorica train. To do the same again: lorica train --config THIS_FILE --output DIR\n"
                + YAML.writeValueAsString(values);
    }

    /** The options of a class that a command mixes in, with what they are now. */
    static String valuesOf(CommandSpec command, Object mixedIn) {
        Map<String, Object> values = new LinkedHashMap<>();
        GivenOptions.of(command, mixedIn).forEach(option -> values.put(option.longestName(), option.getValue()));
        return values.toString();
    }

    /** Paths are made absolute, so that the file means the same in any folder. */
    private static Object plain(Object value) {
        if (value instanceof Collection<?> list) {
            return list.stream().map(EffectiveConfig::plain).toList();
        }
        if (value instanceof DataSource source) {
            return source.absolute().toString();
        }
        return value instanceof Path path && !HubName.is(path.toString())
                ? path.toAbsolutePath().normalize().toString()
                : value instanceof Path ? value.toString() : value;
    }
}
