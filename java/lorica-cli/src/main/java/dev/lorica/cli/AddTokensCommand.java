package dev.lorica.cli;

import dev.lorica.convert.ModelFiles;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code lorica add-tokens}: a model with more words in its vocabulary. */
@Command(
        name = "add-tokens",
        header = "Write a model with more tokens in its vocabulary.",
        description = {
            "",
            "Each is one token then, wherever it stands in a text. It begins as the mean of all tokens, and is learned"
                    + " by a training with --modules-to-save embed_tokens,lm_head on the new model."
        },
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica add-tokens INPUT OUTPUT --tokens FILE",
        optionListHeading = "%nOptions:%n",
        parameterListHeading = "%n",
        footerHeading = "%nExamples:%n",
        footer = {"  lorica add-tokens llama.gguf llama-with-tools.gguf --tokens tools.txt"})
final class AddTokensCommand implements Callable<Integer> {
    private final Terminal terminal;

    @Parameters(index = "0", paramLabel = "INPUT", description = "A GGUF model" + HubFiles.OR_HUB + ".")
    private Path input;

    @Parameters(index = "1", paramLabel = "OUTPUT", description = "The GGUF file to write.")
    private Path output;

    @Option(
            names = "--tokens",
            required = true,
            paramLabel = "FILE",
            description = "The tokens, one a line, without spaces around them.")
    private Path tokens;

    @Option(names = "--overwrite", description = "Replace OUTPUT if it is there already.")
    private boolean overwrite;

    @Mixin
    private CommonOptions common = new CommonOptions();

    AddTokensCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        Path source = HubFiles.model(terminal, input);
        AddedTokens wanted = AddedTokens.read("--tokens", tokens, source);
        try (OutputFile file =
                OutputFile.prepare(output, overwrite, new Inputs().add(source).add(tokens))) {
            ModelFiles.addTokens(source, output, wanted.added());
        }
        wanted.noteKnown(terminal);
        Map<String, Integer> ids = new LinkedHashMap<>();
        for (String token : wanted.added()) {
            ids.put(token, wanted.first() + ids.size());
        }
        terminal.out()
                .println("Saved " + terminal.bold(output.toString()) + ": " + Format.count(ids.size(), "new token"));
        ids.forEach((token, id) -> terminal.out().println("  " + id + "  " + token));
        terminal.out().println("To learn them:");
        terminal.commandLine(
                Shell.program() + " train",
                "--model " + Shell.quote(output.toString()),
                "--modules-to-save embed_tokens,lm_head",
                "--data …",
                "--output …");
        if (terminal.json()) {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("output", output.toString());
            json.put("added", ids);
            json.put("known", wanted.known());
            terminal.printJson(json);
        }
        return ExitCode.OK;
    }
}
