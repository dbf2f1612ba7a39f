package dev.lorica.cli;

import dev.lorica.Tokenizer;
import dev.lorica.convert.ModelFiles;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.LoricaException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
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
        List<String> wanted = read();
        Path source = HubFiles.model(terminal, input);
        List<String> known = new ArrayList<>();
        int first;
        try (Tokenizer tokenizer = Tokenizer.load(source)) {
            first = tokenizer.info().vocabSize();
            wanted.stream().filter(token -> isKnown(tokenizer, token)).forEach(known::add);
        }
        wanted.removeAll(known);
        if (wanted.isEmpty()) {
            throw new LoricaException("--tokens " + tokens + " has no token that is not in the vocabulary already"
                    + (known.isEmpty() ? "" : ": " + String.join(", ", known)));
        }
        try (OutputFile file =
                OutputFile.prepare(output, overwrite, new Inputs().add(source).add(tokens))) {
            ModelFiles.addTokens(source, output, wanted);
        }
        if (!known.isEmpty()) {
            terminal.err().println("note: in the vocabulary already: " + String.join(", ", known));
        }
        Map<String, Integer> ids = new LinkedHashMap<>();
        for (String token : wanted) {
            ids.put(token, first + ids.size());
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
            json.put("known", known);
            terminal.printJson(json);
        }
        return ExitCode.OK;
    }

    private List<String> read() {
        try {
            return new ArrayList<>(Files.readAllLines(tokens).stream()
                    .map(String::strip)
                    .filter(token -> !token.isEmpty())
                    .distinct()
                    .toList());
        } catch (IOException e) {
            throw new FileAccessException("--tokens " + tokens + " cannot be read: " + e.getMessage(), e);
        }
    }

    /** Whether it is one token already, or the name of one that texts do not give. */
    private static boolean isKnown(Tokenizer tokenizer, String token) {
        int[] ids = tokenizer.encode(token, false, true);
        if (ids.length == 1 && tokenizer.decode(ids, true).equals(token)) {
            return true;
        }
        for (int id = 0; id < tokenizer.info().vocabSize(); id++) {
            if (tokenizer.tokenText(id).equals(token)) {
                return true;
            }
        }
        return false;
    }
}
