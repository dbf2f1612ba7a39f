package dev.lorica.cli;

import java.util.List;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;

/** The lines that fish completes by: commands with what they do, options with what they mean, files. */
final class FishCompletion {
    private FishCompletion() {}

    static String of(CommandSpec program) {
        StringBuilder script = new StringBuilder("complete -c lorica -n __fish_use_subcommand -f\n");
        program.options().forEach(option -> script.append(line("__fish_use_subcommand", option)));
        for (CommandSpec command : Described.commands(program)) {
            script.append("complete -c lorica -n __fish_use_subcommand -a ")
                    .append(command.name())
                    .append(" -d ")
                    .append(quoted(Described.header(command)))
                    .append('\n');
            String here = "'__fish_seen_subcommand_from " + command.name() + "'";
            command.options().stream()
                    .filter(option -> !option.hidden())
                    .forEach(option -> script.append(line(here, option)));
        }
        return script.toString();
    }

    private static String line(String condition, OptionSpec option) {
        StringBuilder line = new StringBuilder("complete -c lorica -n ").append(condition);
        for (String name : option.names()) {
            line.append(name.startsWith("--") ? " -l " : " -s ").append(name.replaceFirst("^--?", ""));
        }
        if (option.arity().max() > 0) {
            List<String> choices = Described.choices(option);
            line.append(Described.isFile(option) ? " -r -F" : " -x");
            if (!choices.isEmpty()) {
                line.append(" -a ").append(quoted(String.join(" ", choices)));
            }
        }
        return line.append(" -d ")
                .append(quoted(Described.brief(option)))
                .append('\n')
                .toString();
    }

    private static String quoted(String text) {
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'";
    }
}
