package dev.lorica.cli;

import dev.lorica.Tokenizer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code lorica tokenize}: text to ids and back. */
@Command(
        name = "tokenize",
        header = "Turn text into token ids, or ids back into text.",
        description = {
            "",
            "Reads standard input to its end. Every byte counts, the last line break too: printf '%%s' says what echo"
                    + " does not."
        },
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        optionListHeading = "%nOptions:%n",
        parameterListHeading = "%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  printf '%%s' 'It is a truth' | lorica tokenize llama.gguf",
            "  echo 1 739 338 263 | lorica tokenize llama.gguf --ids"
        })
final class TokenizeCommand implements Callable<Integer> {
    private final Terminal terminal;

    @Parameters(paramLabel = "FILE.gguf", description = "A model, or a file that holds only a vocabulary.")
    private Path file;

    @Option(names = "--ids", description = "Standard input holds ids; write the text that they stand for.")
    private boolean ids;

    @Option(names = "--text", paramLabel = "TEXT", description = "Take this text instead of standard input.")
    private String text;

    @Option(
            names = "--add-special",
            negatable = true,
            defaultValue = "true",
            fallbackValue = "true",
            description = "Put BOS and EOS where the vocabulary asks for them. Default: yes")
    private boolean addSpecial;

    @Option(
            names = "--parse-special",
            negatable = true,
            defaultValue = "true",
            fallbackValue = "true",
            description =
                    "Take control tokens written out in the text, such as <|im_end|>, for what they say. Default: yes")
    private boolean parseSpecial;

    @Option(names = "--pieces", description = "One token per line: its id and its piece of the vocabulary.")
    private boolean pieces;

    @Option(names = "--special", description = "With --ids: write control tokens out too.")
    private boolean special;

    @Mixin
    private CommonOptions common;

    TokenizeCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        try (Tokenizer tokenizer = Tokenizer.load(HubFiles.model(terminal, file))) {
            if (ids) {
                decode(tokenizer);
            } else {
                encode(tokenizer);
            }
        }
        return ExitCode.OK;
    }

    private void encode(Tokenizer tokenizer) {
        int[] encoded = tokenizer.encode(text != null ? text : input(), addSpecial, parseSpecial);
        if (terminal.json()) {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("count", encoded.length);
            json.put("ids", encoded);
            json.put(
                    "pieces",
                    Arrays.stream(encoded).mapToObj(tokenizer::tokenText).toList());
            terminal.printJson(json);
        } else if (pieces) {
            for (int id : encoded) {
                terminal.out().printf("%6d  %s%n", id, tokenizer.tokenText(id));
            }
        } else {
            terminal.out()
                    .println(Arrays.stream(encoded).mapToObj(Integer::toString).collect(Collectors.joining(" ")));
        }
    }

    private void decode(Tokenizer tokenizer) {
        int[] given = parseIds(text != null ? text : input());
        if (pieces && !terminal.json()) {
            for (int id : given) {
                terminal.out().printf("%6d  %s%n", id, tokenizer.tokenText(id));
            }
            return;
        }
        String decoded = tokenizer.decode(given, special);
        if (terminal.json()) {
            terminal.printJson(Map.of("text", decoded));
            return;
        }
        terminal.text().print(decoded);
        if (terminal.outIsTerminal()) {
            terminal.out().println();
        }
        terminal.out().flush();
    }

    /** Ids between anything that lists of numbers are written with: blanks, commas, brackets. */
    private static int[] parseIds(String list) {
        return Arrays.stream(list.split("[\\s,;\\[\\]]+"))
                .filter(word -> !word.isEmpty())
                .mapToInt(word -> {
                    try {
                        return Integer.parseInt(word);
                    } catch (NumberFormatException e) {
                        throw new IllegalArgumentException("\"" + word
                                + "\" is no token id; numbers are meant, with blanks or commas " + "between them");
                    }
                })
                .toArray();
    }

    private String input() {
        try {
            return new String(terminal.in().readAllBytes(), StandardCharsets.UTF_8);
        } catch (IOException e) {
            throw new UncheckedIOException("standard input cannot be read: " + e.getMessage(), e);
        }
    }
}
