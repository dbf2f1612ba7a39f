package dev.lorica.cli;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Model.UsageMessageSpec;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code lorica man-pages}: the help as pages for {@code man}, for those who make packages. */
@Command(
        name = "man-pages",
        header = "Write the help of the program and of every command as manual pages.",
        hidden = true,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica man-pages DIR",
        optionListHeading = "%nOptions:%n",
        footerHeading = "%nExample:%n",
        footer = "  lorica man-pages build/man1")
final class ManPagesCommand implements Callable<Integer> {
    private final Terminal terminal;

    @Spec
    private CommandSpec spec;

    @Parameters(paramLabel = "DIR", description = "The folder for them; made where it is missing.")
    private Path folder;

    @Mixin
    private CommonOptions common = new CommonOptions();

    ManPagesCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() throws IOException {
        CommandSpec program = spec.root();
        List<CommandSpec> commands = Described.commands(program);
        Files.createDirectories(folder);
        Files.writeString(folder.resolve("lorica.1"), page(program, "lorica", commands));
        for (CommandSpec command : commands) {
            String name = "lorica-" + command.name();
            Files.writeString(folder.resolve(name + ".1"), page(command, name, List.of()));
        }
        terminal.out().println((commands.size() + 1) + " pages in " + folder);
        return ExitCode.OK;
    }

    private static String page(CommandSpec command, String name, List<CommandSpec> commands) {
        UsageMessageSpec usage = command.usageMessage();
        StringBuilder page = new StringBuilder();
        page.append(".TH ").append(name.toUpperCase(Locale.ROOT)).append(" 1 \"\" \"lorica ");
        page.append(Version.lorica()).append("\" \"Lorica\"\n");
        page.append(".SH NAME\n").append(text(name)).append(" \\- ").append(text(Described.header(command)));
        page.append("\n.SH SYNOPSIS\n.nf\n");
        Stream.of(usage.customSynopsis())
                .forEach(line -> page.append(text(line)).append('\n'));
        page.append(".fi\n");
        String description =
                String.format(String.join("\n", usage.description())).strip();
        if (!description.isEmpty()) {
            page.append(".SH DESCRIPTION\n").append(paragraphs(description));
        }
        if (!commands.isEmpty()) {
            page.append(".SH COMMANDS\n");
            commands.forEach(of -> entry(page, "lorica-" + of.name() + "(1)", Described.header(of)));
        }
        if (!command.positionalParameters().isEmpty()) {
            page.append(".SH ARGUMENTS\n");
            command.positionalParameters()
                    .forEach(argument -> entry(page, argument.paramLabel(), Described.description(argument)));
        }
        OptionSections.of(command).forEach((title, options) -> {
            if (!options.isEmpty()) {
                page.append(".SH ").append(title.isEmpty() ? "OPTIONS" : text(title.toUpperCase(Locale.ROOT)));
                page.append('\n');
                options.forEach(option -> entry(page, names(option), Described.description(option)));
            }
        });
        if (usage.footer().length > 0) {
            page.append(".SH EXAMPLES\n.nf\n");
            Stream.of(usage.footer())
                    .forEach(line -> page.append(text(String.format(line))).append('\n'));
            page.append(".fi\n");
        }
        if (commands.isEmpty()) {
            page.append(".SH SEE ALSO\n.BR lorica (1)\n");
        }
        return page.toString();
    }

    private static void entry(StringBuilder page, String term, String description) {
        page.append(".TP\n.B ")
                .append(text(term))
                .append('\n')
                .append(text(description))
                .append('\n');
    }

    private static String names(OptionSpec option) {
        String names = String.join(", ", option.names());
        return option.arity().max() > 0 ? names + "=" + option.paramLabel() : names;
    }

    private static String paragraphs(String text) {
        return text.lines()
                .map(line -> line.isBlank() ? ".PP" : text(line.strip()))
                .collect(Collectors.joining("\n", "", "\n"));
    }

    /** For roff: a backslash and a hyphen are what they are, other characters than ASCII go by number, no line begins a request. */
    private static String text(String text) {
        String escaped = text.codePoints()
                .mapToObj(c -> switch (c) {
                    case '\\' -> "\\e";
                    case '-' -> "\\-";
                    default -> c < 127 ? Character.toString(c) : String.format("\\[u%04X]", c);
                })
                .collect(Collectors.joining());
        return escaped.startsWith(".") || escaped.startsWith("'") ? "\\&" + escaped : escaped;
    }
}
