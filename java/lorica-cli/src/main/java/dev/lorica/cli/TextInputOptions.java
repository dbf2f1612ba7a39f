package dev.lorica.cli;

import java.nio.file.Path;
import java.util.List;
import java.util.function.Consumer;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Which texts are worked on one by one, and with which model. */
final class TextInputOptions {
    @Parameters(arity = "0..1", paramLabel = "FILE", description = "Texts, one per line. Default: standard input.")
    Path file;

    @Option(
            names = {"-m", "--model"},
            required = true,
            paramLabel = "FILE",
            description = "The GGUF model" + HubFiles.OR_HUB + ".")
    Path model;

    @Option(names = "--text", paramLabel = "TEXT", description = "This text instead of standard input.")
    String text;

    @Option(
            names = "--text-field",
            paramLabel = "NAME",
            description = "Field of JSON objects with the text. Default: text.")
    String textField;

    /** What says nothing of a text that is given by itself. */
    private static void refuse(boolean isGiven, String what) {
        if (isGiven) {
            throw new IllegalArgumentException(
                    "--text is the one text that is looked at; " + what + " is for texts that are read");
        }
    }

    /**
     * All of them, some at once, as they come.
     *
     * @param pairField of a second text; {@code null}: there is none
     */
    void each(Terminal terminal, String pairField, Consumer<TextLines.Lines> use) {
        if (text != null) {
            refuse(file != null, "FILE");
            refuse(textField != null, "--text-field");
            refuse(pairField != null, "--text-pair-field");
            use.accept(new TextLines.Lines(List.of(text), null));
        } else {
            new TextLines(textField, pairField).each(terminal, file, use);
        }
    }
}
