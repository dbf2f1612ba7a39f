package dev.lorica.cli;

import java.io.File;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import picocli.CommandLine;
import picocli.CommandLine.Model.ArgSpec;
import picocli.CommandLine.Model.CommandSpec;

/** What is said of commands and options outside of their help: in completions and manual pages. */
final class Described {
    private static final Set<String> FILES = Set.of("FILE", "DIR", "FOLDER", "INPUT", "OUTPUT");

    private Described() {}

    /** The commands that the help lists, in its order. */
    static List<CommandSpec> commands(CommandSpec program) {
        return program.subcommands().values().stream()
                .map(CommandLine::getCommandSpec)
                .filter(command -> !command.usageMessage().hidden())
                .toList();
    }

    static String header(CommandSpec command) {
        return oneLine(command.usageMessage().header());
    }

    /** In one line, with what it is when it is not given. */
    static String description(ArgSpec argument) {
        String[] lines = Arrays.stream(argument.description())
                .map(line -> line.replace("${DEFAULT-VALUE}", String.valueOf(argument.defaultValueString(false))))
                .toArray(String[]::new);
        return oneLine(lines);
    }

    /** The first sentence, without the full stop. */
    static String brief(ArgSpec argument) {
        return description(argument)
                .replaceFirst("(?<=\\w{2}[)\"'\\]]?)[.:;] .*", "")
                .replaceFirst("\\.$", "");
    }

    static boolean isFile(ArgSpec argument) {
        Class<?> type = argument.auxiliaryTypes().length > 0 ? argument.auxiliaryTypes()[0] : argument.type();
        return Stream.of(File.class, Path.class).anyMatch(file -> file.isAssignableFrom(type))
                || Arrays.stream(argument.paramLabel().split("[^A-Z]+")).anyMatch(FILES::contains);
    }

    /** The words that it can be, where they are few. */
    static List<String> choices(ArgSpec argument) {
        return argument.completionCandidates() == null
                ? List.of()
                : StreamSupport.stream(argument.completionCandidates().spliterator(), false)
                        .toList();
    }

    private static String oneLine(String[] lines) {
        return String.format(String.join(" ", lines)).replaceAll("\\s+", " ").strip();
    }
}
