package dev.lorica.cli;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.serve.runs.RunProgram;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Stream;
import picocli.CommandLine;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.ParameterException;

/** This program, as the studio starts it for its runs. */
final class StudioProgram implements RunProgram {
    /** What is not for a page: where is written, what is started, what goes to the hub, and what is about one call of the program. */
    static final Set<String> KEPT_FROM_PAGES = Set.of(
            "--config",
            "--output",
            "--overwrite",
            "--resume",
            "--logging-dir",
            "--teacher-cache",
            "--reward-command",
            "--push-to-hub",
            "--hub-private",
            "--dry-run",
            "--show-examples",
            "--json",
            "--verbose",
            "--help");

    /** Names of templates, or files with one. */
    private static final Set<String> NAME_OR_FILE = Set.of("--template", "--chat-template");

    /** More data than that are read by a process of their own, for a plan too. */
    private static final long MOST_DATA_BYTES = 16 << 20;

    private final ModelConfig config;

    /** @param config with which the model that is served was loaded */
    StudioProgram(ModelConfig config) {
        this.config = config;
    }

    @Override
    public List<String> command() {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.add("-XX:+UseSerialGC");
        if (Runtime.version().feature() >= 22) {
            command.add("--enable-native-access=ALL-UNNAMED");
        }
        Stream.of(
                        "lorica.command",
                        "lorica.repository",
                        "java.io.tmpdir",
                        "org.bytedeco.javacpp.cachedir",
                        "user.language")
                .filter(name -> System.getProperty(name) != null)
                .forEach(name -> command.add("-D" + name + "=" + System.getProperty(name)));
        command.add("-cp");
        command.add(absolute(System.getProperty("java.class.path")));
        command.add(LoricaCli.class.getName());
        return command;
    }

    /** A run has a working folder of its own. */
    private static String absolute(String classPath) {
        return Stream.of(classPath.split(File.pathSeparator))
                .map(one -> Path.of(one).toAbsolutePath().toString())
                .reduce((left, right) -> left + File.pathSeparator + right)
                .orElse("");
    }

    @Override
    public String name() {
        return Shell.program();
    }

    private static Terminal silent(ByteArrayOutputStream notes) {
        PrintStream stream = new PrintStream(notes, true, StandardCharsets.UTF_8);
        return new Terminal(InputStream.nullInputStream(), stream, stream);
    }

    @Override
    public ObjectNode plan(Model model, Path yaml, int examples) {
        ByteArrayOutputStream said = new ByteArrayOutputStream();
        ByteArrayOutputStream words = new ByteArrayOutputStream();
        Terminal terminal = new Terminal(
                InputStream.nullInputStream(),
                new PrintStream(said, true, StandardCharsets.UTF_8),
                new PrintStream(words, true, StandardCharsets.UTF_8));
        terminal.useJson(true);
        try (Workplace place = new Workplace(model, config)) {
            TrainCommand train = new TrainCommand(terminal, place);
            CommandLine program = LoricaCli.program(terminal, List.of(train));
            String[] args = {"train", "--config", yaml.toString(), "--dry-run", "--show-examples=" + examples};
            try {
                // without what stands around a command of its own: logging and exit codes are the server's
                program.parseArgs(LoricaCli.arguments(program, args, note -> {}));
            } catch (ParameterException e) {
                throw new InvalidArgumentException(LoricaCli.oneLine(WrongUsage.inWords(WrongUsage.cause(e))));
            }
            if (!train.isPlannedQuickly(model, config, MOST_DATA_BYTES)) {
                return null;
            }
            train.call();
            return (ObjectNode) new ObjectMapper().readTree(said.toByteArray());
        } catch (IllegalArgumentException e) {
            throw new InvalidArgumentException(LoricaCli.oneLine(e.getMessage()));
        } catch (IOException e) {
            throw new IllegalStateException("a plan is no JSON", e);
        }
    }

    private static CommandLine train() {
        CommandLine program = LoricaCli.commandLine(silent(new ByteArrayOutputStream()));
        return program.getSubcommands().get("train");
    }

    @Override
    public List<Option> options() {
        List<Option> options = new ArrayList<>();
        OptionSections.of(train().getCommandSpec()).forEach((section, listed) -> listed.stream()
                .filter(option -> !KEPT_FROM_PAGES.contains(option.longestName()))
                .forEach(option -> options.add(option(section, option))));
        return options;
    }

    private static Option option(String section, OptionSpec option) {
        return new Option(
                option.longestName().substring(2),
                section,
                String.join(" ", option.description())
                        .replace("${DEFAULT-VALUE}", String.valueOf(option.defaultValueString(true)))
                        .replace("%%", "%"),
                initial(option),
                option.arity().max() == 0,
                option.isMultiValue(),
                isFile(option),
                choices(option));
    }

    private static String initial(OptionSpec option) {
        Object value = option.initialValue();
        boolean nothing =
                value == null || value instanceof Collection<?> list && list.isEmpty() || value instanceof Map<?, ?>;
        return nothing
                ? null
                : value instanceof Collection<?> list
                        ? String.join(",", list.stream().map(String::valueOf).toList())
                        : value.toString();
    }

    static boolean isFile(OptionSpec option) {
        return NAME_OR_FILE.contains(option.longestName())
                || Stream.concat(Stream.of(option.type()), Stream.of(option.auxiliaryTypes()))
                        .anyMatch(type -> type == Path.class || type == DataSource.class);
    }

    private static List<String> choices(OptionSpec option) {
        List<String> choices = new ArrayList<>();
        if (option.completionCandidates() != null) {
            option.completionCandidates().forEach(choices::add);
        }
        return choices;
    }

    @Override
    public Meaning read(String yaml) {
        ByteArrayOutputStream said = new ByteArrayOutputStream();
        Path file = null;
        try {
            file = Files.createTempFile("lorica", ".yaml");
            Files.writeString(file, yaml);
            CommandLine program = LoricaCli.commandLine(silent(said));
            List<String> notes = new ArrayList<>();
            String path = file.toString();
            String[] args = LoricaCli.arguments(
                    program,
                    new String[] {"train", "--config", path},
                    note -> notes.add(note.replace(path + ": ", "").replaceFirst("^note: ", "")));
            return new Meaning(meaning(program.getSubcommands().get("train").getCommandSpec(), args), notes);
        } catch (FileFormatException e) {
            throw new InvalidArgumentException(e.getMessage().replace("--config " + file, "the YAML"));
        } catch (IOException e) {
            throw new FileAccessException("no temporary file can be made: " + e.getMessage(), e);
        } finally {
            if (file != null) {
                file.toFile().delete();
            }
        }
    }

    /** Of {@code --name=value}, as a file of options becomes. What is not for pages is left out. */
    private static Map<String, List<String>> meaning(CommandSpec train, String[] args) {
        Map<String, List<String>> options = new LinkedHashMap<>();
        for (String arg : args) {
            int equals = arg.indexOf('=');
            OptionSpec option = train.findOption(equals < 0 ? arg : arg.substring(0, equals));
            if (option != null && !KEPT_FROM_PAGES.contains(option.longestName())) {
                options.computeIfAbsent(option.longestName().substring(2), key -> new ArrayList<>())
                        .add(equals < 0 ? "true" : arg.substring(equals + 1));
            }
        }
        return options;
    }
}
