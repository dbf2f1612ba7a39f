package dev.lorica.cli;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;

/** Command lines to be copied. */
final class Shell {
    private Shell() {}

    /** How this program was started: a wrapper says so in the property {@code lorica.command}. */
    static String program() {
        return System.getProperty("lorica.command", "lorica");
    }

    /** {@code word} as a POSIX shell reads it as one word. */
    static String quote(String word) {
        if (word.matches("[A-Za-z0-9_@%+=:,./-]+")) {
            return word;
        }
        return word.matches("[^\"$`\\\\!\\n]*") ? "\"" + word + "\"" : "'" + word.replace("'", "'\\''") + "'";
    }

    /** The arguments of a command without its name and without these options, whichever of their names was used. */
    static List<String> without(CommandSpec command, List<String> args, String... options) {
        Set<OptionSpec> unwanted = new HashSet<>();
        for (String option : options) {
            unwanted.add(command.findOption(option));
        }
        List<String> rest = new ArrayList<>();
        for (int i = args.indexOf(command.name()) + 1; i < args.size(); i++) {
            String word = args.get(i);
            int equals = word.startsWith("--") ? word.indexOf('=') : -1;
            OptionSpec option =
                    word.startsWith("-") ? command.findOption(equals < 0 ? word : word.substring(0, equals)) : null;
            if (option == null || !unwanted.contains(option)) {
                rest.add(word);
            } else if (equals < 0) {
                i++;
            }
        }
        return rest;
    }
}
