package dev.lorica.cli;

import dev.lorica.data.DataConfig;
import dev.lorica.data.Dataset;
import dev.lorica.data.Overflow;
import dev.lorica.data.PromptTemplate;
import java.nio.file.Path;
import picocli.CommandLine.Option;

/** Which fields of a data file are used, and how they become tokens. */
final class DataOptions {
    private static final int DEFAULT_MAX_LENGTH = 1024;

    @Option(
            names = "--prompt-field",
            paramLabel = "NAME",
            description = "Field with the prompt. Default: found by itself.")
    String promptField;

    @Option(
            names = "--response-field",
            paramLabel = "NAME",
            description = "Field with the response. Default: found by itself.")
    String responseField;

    @Option(
            names = "--text-field",
            paramLabel = "NAME",
            description = "Field with plain texts, all of which is learned.")
    String textField;

    @Option(
            names = "--template",
            paramLabel = "NAME",
            description = "instruction (### Instruction: … ### Response: …) or plain (nothing around the prompt). "
                    + "Default: plain for texts and for prompts that carry ### Response: already, else instruction.")
    String template;

    @Option(
            names = "--max-length",
            paramLabel = "N",
            description = "Most tokens of one example. Default: 1024, or the model's context where that is smaller.")
    Integer maxLength;

    @Option(
            names = "--overflow",
            paramLabel = "WAY",
            description = "What becomes of longer examples: drop, truncate or error. They are counted and reported. "
                    + "Default: ${DEFAULT-VALUE}")
    String overflow = "drop";

    @Option(names = "--train-on-prompt", description = "Learn the prompts too, not only responses.")
    boolean trainOnPrompt;

    Dataset load(Path file) {
        if (textField == null) {
            return Dataset.load(file, promptField, responseField);
        }
        if (promptField != null || responseField != null) {
            throw new IllegalArgumentException("--text-field excludes --prompt-field and --response-field");
        }
        return Dataset.loadText(file, textField);
    }

    DataConfig config(int modelContext) {
        int length = maxLength != null ? maxLength : Math.min(DEFAULT_MAX_LENGTH, modelContext);
        return new DataConfig(
                template == null ? null : PromptTemplate.named(template),
                length,
                Choices.of("--overflow", overflow, Overflow.class),
                trainOnPrompt);
    }
}
