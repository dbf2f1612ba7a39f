package dev.lorica.cli;

import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.AutoComplete;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code lorica completion}: what a shell needs to complete commands, options and file names. */
@Command(
        name = "completion",
        header = "Print what bash, zsh or fish needs to complete lorica's commands and options.",
        description = {
            "",
            "The archive and the package bring it with them; elsewhere it goes where the shell looks for it, as below."
        },
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica completion bash|zsh|fish",
        parameterListHeading = "%nShell:%n",
        optionListHeading = "%nOptions:%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica completion bash > ~/.local/share/bash-completion/completions/lorica",
            "  lorica completion zsh > ~/.zfunc/_lorica",
            "  lorica completion fish > ~/.config/fish/completions/lorica.fish"
        })
final class CompletionCommand implements Callable<Integer> {
    private final Terminal terminal;

    @Spec
    private CommandSpec spec;

    @Parameters(paramLabel = "SHELL", description = "bash, zsh or fish.")
    private String shell;

    @Mixin
    private CommonOptions common = new CommonOptions();

    CompletionCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        CommandLine program = spec.root().commandLine();
        String script =
                switch (shell.toLowerCase(Locale.ROOT)) {
                    case "bash" -> AutoComplete.bash("lorica", program);
                    case "zsh" -> ZshCompletion.of(program.getCommandSpec());
                    case "fish" -> FishCompletion.of(program.getCommandSpec());
                    default ->
                        throw new IllegalArgumentException(
                                "completion is there for bash, zsh and fish, not for \"" + shell + "\"");
                };
        if (terminal.json()) {
            terminal.printJson(Map.of("shell", shell, "script", script));
        } else {
            terminal.text().print(script);
            terminal.text().flush();
        }
        return ExitCode.OK;
    }
}
