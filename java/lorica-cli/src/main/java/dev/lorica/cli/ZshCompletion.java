package dev.lorica.cli;

import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import picocli.CommandLine.Model.ArgSpec;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Model.PositionalParamSpec;

/** The function of zsh's completion system: commands with what they do, options with what they mean, files. */
final class ZshCompletion {
    private ZshCompletion() {}

    static String of(CommandSpec program) {
        List<CommandSpec> commands = Described.commands(program);
        StringBuilder script = new StringBuilder(
                        "#compdef lorica\n\n_lorica() {\n    local line state\n    local -a commands\n")
                .append("    commands=(\n");
        for (CommandSpec command : commands) {
            script.append("        ")
                    .append(quoted(command.name() + ":" + Described.header(command)))
                    .append('\n');
        }
        script.append("    )\n    _arguments -C \\\n");
        arguments(program)
                .forEach(argument -> script.append("        ").append(argument).append(" \\\n"));
        script.append("        '1:command:->command' '*::argument:->argument'\n")
                .append("    case $state in\n        command) _describe command commands ;;\n")
                .append("        argument)\n            case $words[1] in\n");
        for (CommandSpec command : commands) {
            script.append("                ").append(command.name()).append(")\n                    _arguments \\\n");
            script.append(arguments(command)
                    .map(argument -> "                        " + argument)
                    .collect(Collectors.joining(" \\\n", "", "\n                    ;;\n")));
        }
        return script.append("            esac\n            ;;\n    esac\n}\n\n")
                .append("if [ \"$funcstack[1]\" = _lorica ]; then _lorica \"$@\"; else compdef _lorica lorica; fi\n")
                .toString();
    }

    private static Stream<String> arguments(CommandSpec command) {
        Stream<String> options =
                command.options().stream().filter(option -> !option.hidden()).flatMap(ZshCompletion::option);
        Stream<String> parameters = command.positionalParameters().stream()
                .filter(parameter -> !parameter.hidden())
                .map(ZshCompletion::parameter);
        return Stream.concat(options, parameters);
    }

    /** One argument of {@code _arguments} for each name. */
    private static Stream<String> option(OptionSpec option) {
        String meaning = "[" + Described.brief(option).replaceAll("([\\\\\\[\\]:])", "\\\\$1") + "]";
        boolean hasValue = option.arity().max() > 0;
        String again = option.isMultiValue() ? "*" : "(" + String.join(" ", option.names()) + ")";
        return Stream.of(option.names()).map(name -> {
            String way = !hasValue ? "" : name.startsWith("--") ? "=" : "+";
            return quoted(again + name + way + meaning + (hasValue ? value(option) : ""));
        });
    }

    private static String parameter(PositionalParamSpec parameter) {
        return quoted((parameter.isMultiValue() ? "*" : "") + value(parameter));
    }

    private static String value(ArgSpec argument) {
        String label = argument.paramLabel().replaceAll("([\\\\:])", "\\\\$1");
        List<String> choices = Described.choices(argument);
        String action = !choices.isEmpty()
                ? "(" + String.join(" ", choices) + ")"
                : Described.isFile(argument) ? "_files" : " ";
        return ":" + label + ":" + action;
    }

    private static String quoted(String text) {
        return "'" + text.replace("'", "'\\''") + "'";
    }
}
