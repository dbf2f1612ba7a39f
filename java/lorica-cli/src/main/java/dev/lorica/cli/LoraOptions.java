package dev.lorica.cli;

import dev.lorica.adapter.LoraConfig;
import dev.lorica.adapter.Method;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.IntStream;
import picocli.CommandLine.Option;

/** What a new adapter looks like. Names, and what they mean, are those of PEFT's LoraConfig. */
@Section("LoRA")
final class LoraOptions {
    private static final LoraConfig DEFAULTS = LoraConfig.defaults();
    private static final Pattern PISSA_ROUNDS = Pattern.compile("pissa_niter_([1-9][0-9]{0,3})");
    private static final Pattern RANGE = Pattern.compile("([0-9]{1,4})(?:-([0-9]{1,4}))?");

    @OfMethod(Method.LORA)
    @Option(
            names = "--lora-r",
            paramLabel = "N",
            description = "Rank: columns of B and rows of A. Default: ${DEFAULT-VALUE}")
    int rank = DEFAULTS.rank();

    @OfMethod(Method.LORA)
    @Option(
            names = "--lora-alpha",
            paramLabel = "X",
            description = "The product B A is scaled by alpha / rank. Default: 32")
    double alpha = DEFAULTS.alpha();

    @OfMethod(Method.LORA)
    @Option(
            names = "--lora-dropout",
            paramLabel = "SHARE",
            description = "Share of the inputs of A that is zeroed while training. Default: 0")
    double dropout = DEFAULTS.dropout();

    @OfMethod({Method.LORA, Method.IA3})
    @Option(
            names = "--target-modules",
            paramLabel = "NAMES",
            arity = "1..*",
            split = ",",
            description =
                    "Linear layers by PEFT's names (q_proj,v_proj; c_attn; query_key_value; qkv_proj), GGUF's names"
                            + " for them, all-linear, or default: what PEFT adapts where none are named; or a regular"
                            + " expression for whole names, without commas. Default: all-linear; of IA3 PEFT's, with its"
                            + " feed-forward modules")
    List<String> targetModules = new ArrayList<>();

    @OfMethod(Method.LORA)
    @Option(
            names = "--exclude-modules",
            paramLabel = "NAMES",
            arity = "1..*",
            split = ",",
            description = "Which of them are not adapted, by names or regular expressions.")
    List<String> excludeModules = new ArrayList<>();

    @OfMethod(Method.LORA)
    @Option(
            names = "--layers-to-transform",
            paramLabel = "LAYERS",
            split = ",",
            description = "Adapt these layers only, as 0-7,12. Default: all")
    List<String> layers = new ArrayList<>();

    @OfMethod(Method.LORA)
    @Option(
            names = "--num-layers",
            paramLabel = "N",
            description = "Adapt the last N layers only; -1: all. Default: -1")
    int lastLayers = -1;

    @OfMethod(Method.LORA)
    @Option(
            names = "--rank-pattern",
            paramLabel = "NAME=N",
            split = ",",
            description =
                    "Other ranks for modules whose names end so: v_proj=8,blk.3.attn_q=4; a regular expression too.")
    Map<String, Integer> rankPattern = new LinkedHashMap<>();

    @OfMethod(Method.LORA)
    @Option(names = "--alpha-pattern", paramLabel = "NAME=X", split = ",", description = "The same for alpha.")
    Map<String, Double> alphaPattern = new LinkedHashMap<>();

    @OfMethod(Method.LORA)
    @Option(names = "--use-rslora", description = "Scale by alpha / √rank instead.")
    boolean useRslora;

    @OfMethod(Method.LORA)
    @Option(
            names = "--use-dora",
            description =
                    "Train the norms of the weights' rows too (DoRA). llama.cpp has no such adapters: lorica merge"
                            + " makes models for it.")
    boolean useDora;

    @OfMethod(Method.LORA)
    @Option(
            names = "--init-lora-weights",
            paramLabel = "WAY",
            description =
                    "How it begins: true (uniform A, as PEFT does), gaussian, orthogonal, or pissa: as the principal"
                            + " parts of the weights, of twice the rank, half of which is not trained; pissa_niter_N looks"
                            + " for them in N rounds. Default: ${DEFAULT-VALUE}")
    String init = "true";

    @OfMethod(Method.LORA)
    @Option(
            names = "--modules-to-save",
            paramLabel = "NAMES",
            arity = "1..*",
            split = ",",
            description =
                    "Train these whole, beside the LoRA, and store them with it: embed_tokens, lm_head, norm, or other"
                            + " modules that are no targets. llama.cpp runs the model that lorica merge makes.")
    List<String> modulesToSave = new ArrayList<>();

    @OfMethod(Method.LORA)
    @Option(
            names = "--bias",
            paramLabel = "WHICH",
            description = "Train biases too: none, lora_only (of the layers that are adapted), or all. Default:"
                    + " ${DEFAULT-VALUE}")
    String bias = "none";

    @OfMethod(Method.LORA)
    @Option(
            names = "--alora-invocation",
            paramLabel = "TEXT",
            description =
                    "An activated LoRA (aLoRA): it is added to the tokens of a text from the last occurrence of this"
                            + " text on, such as \"<|im_start|>assistant\", and to none of a text without it. What stands"
                            + " before is the base model's; no model can have it folded in.")
    String aloraInvocation;

    List<String> targetModules() {
        return targetModules.stream()
                .map(String::strip)
                .filter(name -> !name.isEmpty())
                .map(name -> name.equals("all") ? LoraConfig.ALL_LINEAR : name) // LLaMA-Factory's word
                .toList();
    }

    /** @param modelLayers of the model that is adapted */
    LoraConfig config(long seed, int modelLayers) {
        Matcher rounds = PISSA_ROUNDS.matcher(init.toLowerCase(Locale.ROOT));
        boolean counted = rounds.matches();
        LoraConfig.Init start =
                switch (counted ? "pissa" : init.toLowerCase(Locale.ROOT)) {
                    case "true", "default" -> LoraConfig.Init.DEFAULT;
                    case "gaussian" -> LoraConfig.Init.GAUSSIAN;
                    case "orthogonal" -> LoraConfig.Init.ORTHOGONAL;
                    case "pissa" -> LoraConfig.Init.PISSA;
                    default ->
                        throw new IllegalArgumentException("--init-lora-weights cannot be \"" + init
                                + "\"; it is one of true, gaussian, orthogonal, pissa, pissa_niter_N");
                };
        return LoraConfig.builder()
                .rank(rank)
                .alpha(alpha)
                .dropout(dropout)
                .useRslora(useRslora)
                .useDora(useDora)
                .layersToTransform(layerNumbers(modelLayers))
                .excludeModules(excludeModules.stream().map(String::strip).toList())
                .rankPattern(rankPattern)
                .alphaPattern(alphaPattern)
                .init(start)
                .pissaIterations(counted ? Integer.parseInt(rounds.group(1)) : 0)
                .seed(seed)
                .modulesToSave(modulesToSave.stream().map(String::strip).toList())
                .bias(Choices.of("--bias", bias, LoraConfig.Bias.class))
                .aloraInvocation(invocation())
                .targetModules(targetModules.isEmpty() ? DEFAULTS.targetModules() : targetModules())
                .build();
    }

    private String invocation() {
        if (aloraInvocation == null) {
            return "";
        }
        if (aloraInvocation.isEmpty()) {
            throw new IllegalArgumentException("--alora-invocation is empty; a text is meant, with which it begins");
        }
        if (useDora) {
            throw new IllegalArgumentException("--alora-invocation and --use-dora exclude each other");
        }
        return aloraInvocation;
    }

    /** {@code 0-7,12} as numbers. */
    private List<Integer> layerNumbers(int modelLayers) {
        List<Integer> numbers = new ArrayList<>();
        if (lastLayers != -1) {
            if (!layers.isEmpty()) {
                throw new IllegalArgumentException("--num-layers and --layers-to-transform exclude each other");
            }
            if (lastLayers < 1 || lastLayers > modelLayers) {
                throw new IllegalArgumentException("--num-layers cannot be " + lastLayers
                        + (modelLayers == Integer.MAX_VALUE
                                ? "; it is 1 or more, or -1"
                                : "; the model has " + modelLayers + " layers"));
            }
            if (modelLayers == Integer.MAX_VALUE) {
                return numbers;
            }
            IntStream.range(modelLayers - lastLayers, modelLayers).forEach(numbers::add);
        }
        numbers.addAll(layerNumbers("--layers-to-transform", layers));
        return numbers;
    }

    static List<Integer> layerNumbers(String option, List<String> layers) {
        List<Integer> numbers = new ArrayList<>();
        for (String part : layers) {
            Matcher range = RANGE.matcher(part.strip());
            if (!range.matches()) {
                throw new IllegalArgumentException(option + " cannot be \"" + part + "\"; layers are meant, as 0-7,12");
            }
            int first = Integer.parseInt(range.group(1));
            int last = range.group(2) == null ? first : Integer.parseInt(range.group(2));
            if (last < first) {
                throw new IllegalArgumentException(option + " " + part + " ends before it begins");
            }
            IntStream.rangeClosed(first, last).forEach(numbers::add);
        }
        return numbers;
    }
}
