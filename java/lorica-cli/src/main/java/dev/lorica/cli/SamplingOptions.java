package dev.lorica.cli;

import dev.lorica.generate.GenerationConfig;
import java.util.ArrayList;
import java.util.List;
import picocli.CommandLine.Option;

/** How text is generated. Names and defaults are llama.cpp's. */
@Section("Sampling")
final class SamplingOptions {
    private static final GenerationConfig DEFAULTS = GenerationConfig.defaults();

    @Option(
            names = {"-n", "--max-tokens"},
            paramLabel = "N",
            description = "Most tokens to generate; also --max-new-tokens. Default: ${DEFAULT-VALUE}")
    int maxTokens = DEFAULTS.maxNewTokens();

    @Option(
            names = "--max-length",
            paramLabel = "N",
            description = "Most tokens of prompt and text together, instead of --max-tokens.")
    Integer maxLength;

    @Option(
            names = {"--num-return-sequences", "--n"},
            paramLabel = "N",
            description = "Texts to generate, each with the next seed. Default: ${DEFAULT-VALUE}")
    int returnSequences = 1;

    @Option(
            names = "--temperature",
            paramLabel = "X",
            description = "0: always the likeliest token. Default: ${DEFAULT-VALUE}")
    double temperature = DEFAULTS.temperature();

    @Option(
            names = "--top-k",
            paramLabel = "N",
            description = "Only the N likeliest tokens; 0: all. Default: ${DEFAULT-VALUE}")
    int topK = DEFAULTS.topK();

    @Option(
            names = "--top-p",
            paramLabel = "X",
            description = "Only the likeliest tokens with this probability together; 1: all. Default: ${DEFAULT-VALUE}")
    double topP = DEFAULTS.topP();

    @Option(
            names = "--min-p",
            paramLabel = "X",
            description = "Only tokens this many times as likely as the likeliest; 0: all. Default: ${DEFAULT-VALUE}")
    double minP = DEFAULTS.minP();

    @Option(
            names = "--repetition-penalty",
            paramLabel = "X",
            description = "Makes tokens seen already less likely; 1: none. Default: 1")
    double repetitionPenalty = DEFAULTS.repetitionPenalty();

    @Option(
            names = "--repetition-window",
            paramLabel = "N",
            description = "How many of the last tokens count as seen; -1: all. Default: ${DEFAULT-VALUE}")
    int repetitionWindow = DEFAULTS.repetitionWindow();

    @Option(names = "--stop", paramLabel = "TEXT", description = "End before this text; may be given several times.")
    List<String> stop = new ArrayList<>();

    @Option(
            names = "--seed",
            paramLabel = "N",
            description = "The same seed gives the same text. Default: ${DEFAULT-VALUE}")
    long seed = DEFAULTS.seed();

    /** What needs no model to be found wrong. */
    void check() {
        if (returnSequences < 1) {
            throw new IllegalArgumentException(
                    "--num-return-sequences cannot be " + returnSequences + "; it is 1 or more");
        }
        if (maxLength != null && maxLength < 1) {
            throw new IllegalArgumentException("--max-length cannot be " + maxLength + "; it is 1 or more");
        }
        config(seed, 0);
    }

    /** @param promptTokens of what is gone on with */
    GenerationConfig config(long seed, int promptTokens) {
        if (maxLength != null && maxLength <= promptTokens) {
            throw new IllegalArgumentException("--max-length is " + maxLength + ", and the prompt alone has "
                    + Format.count(promptTokens, "token"));
        }
        return GenerationConfig.builder()
                .maxNewTokens(maxLength != null ? maxLength - promptTokens : maxTokens)
                .temperature(temperature)
                .topK(topK)
                .topP(topP)
                .minP(minP)
                .repetitionPenalty(repetitionPenalty)
                .repetitionWindow(repetitionWindow)
                .stop(stop)
                .seed(seed)
                .build();
    }
}
