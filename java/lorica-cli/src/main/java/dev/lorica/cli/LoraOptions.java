package dev.lorica.cli;

import dev.lorica.LoraConfig;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import picocli.CommandLine.Option;

/** What a new adapter looks like. Names, and what they mean, are those of PEFT's LoraConfig. */
final class LoraOptions {
    private static final LoraConfig DEFAULTS = LoraConfig.defaults();

    @Option(
            names = "--lora-r",
            paramLabel = "N",
            description = "Rank: columns of B and rows of A. Default: ${DEFAULT-VALUE}")
    int rank = DEFAULTS.rank();

    @Option(
            names = "--lora-alpha",
            paramLabel = "X",
            description = "The product B A is scaled by alpha / rank. Default: 32")
    double alpha = DEFAULTS.alpha();

    @Option(
            names = "--lora-dropout",
            paramLabel = "SHARE",
            description = "Share of the inputs of A that is zeroed while training. Default: 0")
    double dropout = DEFAULTS.dropout();

    @Option(
            names = "--target-modules",
            paramLabel = "NAMES",
            arity = "1..*",
            split = ",",
            description =
                    "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj, GGUF's names for them, or all-linear. "
                            + "Default: all-linear")
    List<String> targetModules = new ArrayList<>(DEFAULTS.targetModules());

    @Option(names = "--use-rslora", description = "Scale by alpha / √rank instead.")
    boolean useRslora;

    @Option(
            names = "--init-lora-weights",
            paramLabel = "WAY",
            description = "How A begins: true (uniform, as PEFT does) or gaussian. Default: ${DEFAULT-VALUE}")
    String init = "true";

    LoraConfig config(long seed) {
        LoraConfig.Init start =
                switch (init.toLowerCase(Locale.ROOT)) {
                    case "true", "default" -> LoraConfig.Init.DEFAULT;
                    case "gaussian" -> LoraConfig.Init.GAUSSIAN;
                    default -> throw new IllegalArgumentException(
                            "--init-lora-weights cannot be \"" + init + "\"; it is one of true, gaussian");
                };
        return LoraConfig.builder()
                .rank(rank)
                .alpha(alpha)
                .dropout(dropout)
                .useRslora(useRslora)
                .init(start)
                .seed(seed)
                .targetModules(targetModules.stream()
                        .map(String::strip)
                        .filter(name -> !name.isEmpty())
                        .toList())
                .build();
    }
}
