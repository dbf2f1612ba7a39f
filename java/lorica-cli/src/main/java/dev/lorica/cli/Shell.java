package dev.lorica.cli;

import java.util.stream.Collectors;
import picocli.CommandLine.Model.CommandSpec;

/** Command lines to be copied. */
final class Shell {
    private Shell() {}

    /** How this program was started: a wrapper says so in the property {@code lorica.command}. */
    static String program() {
        return System.getProperty("lorica.command", "lorica");
    }

    /** How training is started, which is otherwise on a cluster: as the property {@code lorica.command.train} says, where it is set. */
    static String training() {
        return System.getProperty("lorica.command.train", program() + " train");
    }

    /** The command line that was given, to be given again. */
    static String commandLine(CommandSpec command) {
        return program()
                + command.root().commandLine().getParseResult().originalArgs().stream()
                        .map(word -> " " + quote(word))
                        .collect(Collectors.joining());
    }

    /** {@code word} as a POSIX shell reads it as one word. */
    static String quote(String word) {
        if (word.matches("[A-Za-z0-9_@%+=:,./-]+")) {
            return word;
        }
        return word.matches("[^\"$`\\\\!\\n]*") ? "\"" + word + "\"" : "'" + word.replace("'", "'\\''") + "'";
    }
}
