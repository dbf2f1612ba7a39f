package dev.lorica.cli;

import java.util.List;

/** The library speaks of its settings; here these are options. */
final class LibraryWords {
    private record Phrase(String ofTheLibrary, String ofThisProgram) {}

    private static final List<Phrase> PHRASES = List.of(
            new Phrase("choose a chat template:", "choose one with --chat-template:"),
            new Phrase("choose a chat template", "choose one with --chat-template"),
            new Phrase("choose one template for both", "choose one for both with --template or --chat-template"),
            new Phrase("take the template plain", "take --template plain"),
            new Phrase(
                    "name the prompt field and the response field",
                    "name your own with --prompt-field and --response-field"),
            new Phrase(
                    "the text field excludes the prompt field, the response field and the messages field",
                    "--text-field excludes --prompt-field, --response-field and --messages-field"),
            new Phrase(
                    "the messages field excludes the prompt field and the response field",
                    "--messages-field excludes --prompt-field and --response-field"),
            new Phrase("raise the max length, or choose the overflow", "raise --max-length, or choose --overflow"),
            new Phrase(
                    "with an objective for pairs, such as dpo", "with an objective for pairs, such as --objective dpo"),
            new Phrase("raise the max length", "raise --max-length"),
            new Phrase("max new tokens is", "--max-tokens is"),
            new Phrase("n_threads is", "--threads is"),
            new Phrase("numVirtualTokens is", "--num-virtual-tokens is"),
            new Phrase("encoderHiddenSize is", "--encoder-hidden-size is"),
            new Phrase("name the text field and the label field", "name them with --text-field and --label-field"),
            new Phrase(
                    "has no loss but that of a classifier",
                    "has no loss but that of a classifier, which --label-field trains"),
            new Phrase("needs an API key:", "needs an API key (LORICA_API_KEY, or --api-key):"),
            new Phrase("which a model is given beside its own name:", "which is given beside its model: --adapter"));

    private LibraryWords() {}

    static String asOptions(String message) {
        String words = message;
        for (Phrase phrase : PHRASES) {
            words = words.replace(phrase.ofTheLibrary, phrase.ofThisProgram);
        }
        return words;
    }
}
