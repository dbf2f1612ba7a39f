package dev.lorica.cli;

import dev.lorica.ModelConfig;
import dev.lorica.adapter.AdapterConfig;
import dev.lorica.adapter.BitFitConfig;
import dev.lorica.adapter.BottleneckConfig;
import dev.lorica.adapter.FullConfig;
import dev.lorica.adapter.Ia3Config;
import dev.lorica.adapter.Method;
import dev.lorica.adapter.PTuningConfig;
import dev.lorica.adapter.PrefixTuningConfig;
import dev.lorica.adapter.PromptTuningConfig;
import java.lang.reflect.Field;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Objects;
import java.util.Set;
import java.util.stream.Collectors;
import picocli.CommandLine.Option;

/** What is trained, and the options of each way. */
@Section("Method")
final class MethodOptions {
    private static final int VIRTUAL_TOKENS = 20;

    @Option(
            names = "--method",
            paramLabel = "NAME",
            description =
                    "What is trained: lora, full (the model's own weights; the result is a model too), ia3 (factors of"
                            + " what goes in and out of layers), or bitfit (biases and norms). llama.cpp runs the last two"
                            + " once lorica merge has folded them in. prompt-tuning: embeddings in front of every text;"
                            + " p-tuning: the same out of a small network, which is trained; prefix-tuning: keys and"
                            + " values in front of every text; bottleneck: small layers behind the branches of each layer."
                            + " Default: ${DEFAULT-VALUE}")
    String method = "lora";

    @OfMethod(Method.IA3)
    @Option(
            names = "--feedforward-modules",
            paramLabel = "NAMES",
            arity = "1..*",
            split = ",",
            description = "IA3: those of the target modules whose input is multiplied, not their output.")
    List<String> feedforwardModules = new ArrayList<>();

    @OfMethod(Method.FULL)
    @Option(
            names = "--train-layers",
            paramLabel = "LAYERS",
            split = ",",
            description = "full: train these layers alone, as 8-15, neither embeddings nor what is behind the layers."
                    + " Default: everything")
    List<String> trainLayers = new ArrayList<>();

    @OfMethod(Method.FULL)
    @Option(
            names = "--freeze",
            paramLabel = "PARTS",
            split = ",",
            description = "full: do not train embed, head, or both (embed,head).")
    List<String> freeze = new ArrayList<>();

    @OfMethod({Method.LORA, Method.FULL})
    @Option(
            names = "--add-tokens",
            paramLabel = "FILE",
            description =
                    "Tokens to add to the vocabulary, one a line, which the adapter learns and keeps: with LoRA and"
                            + " --modules-to-save embed_tokens,lm_head, or full. Each begins as the mean of all others.")
    Path addTokens;

    @OfMethod({Method.PROMPT_TUNING, Method.P_TUNING, Method.PREFIX_TUNING})
    @Option(
            names = "--num-virtual-tokens",
            paramLabel = "N",
            description = "prompt-tuning, p-tuning, prefix-tuning: so many of them. If not given, 20.")
    Integer virtualTokens;

    @OfMethod(Method.PROMPT_TUNING)
    @Option(
            names = "--prompt-tuning-init",
            paramLabel = "WAY",
            description =
                    "prompt-tuning: they begin as those of tokens of the vocabulary at random (sample-vocab), as those"
                            + " of a text (text), or large and random, as PEFT has it (random). Default: sample-vocab,"
                            + " text where one is given")
    String promptInit;

    @OfMethod(Method.PROMPT_TUNING)
    @Option(
            names = "--prompt-tuning-init-text",
            paramLabel = "TEXT",
            description = "prompt-tuning: that text, cut or repeated to as many tokens.")
    String promptText;

    @OfMethod(Method.P_TUNING)
    @Option(
            names = "--encoder-hidden-size",
            paramLabel = "N",
            description = "p-tuning: of the network that makes them. Default: that of the model's embeddings")
    Integer encoderHiddenSize;

    @OfMethod(Method.P_TUNING)
    @Option(
            names = "--encoder-reparameterization-type",
            paramLabel = "NAME",
            description = "p-tuning: what that network is. MLP; PEFT's LSTM is not computed.")
    String encoderType;

    @OfMethod(Method.BOTTLENECK)
    @Option(
            names = "--bottleneck-placement",
            paramLabel = "NAME",
            description =
                    "bottleneck: houlsby (behind attention and feed-forward layers, AdapterHub's double_seq_bn) or pfeiffer"
                            + " (on the stream behind each layer, seq_bn). If not given, houlsby.")
    String placement;

    @OfMethod(Method.BOTTLENECK)
    @Option(
            names = "--reduction-factor",
            paramLabel = "N",
            description = "bottleneck: they are so many times narrower than the embeddings. If not given, 16.")
    Integer reductionFactor;

    @OfMethod(Method.BOTTLENECK)
    @Option(
            names = "--non-linearity",
            paramLabel = "NAME",
            description =
                    "bottleneck: relu, swish, gelu, gelu_new or tanh. If not given, swish for houlsby, relu for pfeiffer.")
    String nonLinearity;

    /**
     * The configuration with which the model is loaded.
     *
     * @param model on this machine
     */
    ModelConfig withAddedTokens(Terminal terminal, ModelConfig config, Path model) {
        if (addTokens == null) {
            return config;
        }
        AddedTokens tokens = AddedTokens.read("--add-tokens", addTokens, model);
        tokens.noteKnown(terminal);
        return config.withAddedTokens(tokens.added());
    }

    Method method() {
        return Choices.of("--method", method, Method.class);
    }

    /** Names of options of the other methods, which this one refuses. */
    Set<String> ofOthers() {
        Set<String> names = new LinkedHashSet<>();
        for (Class<?> options : List.of(MethodOptions.class, LoraOptions.class)) {
            fieldsOfOthers(options).forEach(field -> names.add(nameOf(field)));
        }
        return names;
    }

    private List<Field> fieldsOfOthers(Class<?> options) {
        return Arrays.stream(options.getDeclaredFields())
                .filter(field -> field.isAnnotationPresent(OfMethod.class))
                .filter(field ->
                        !List.of(field.getAnnotation(OfMethod.class).value()).contains(method()))
                .toList();
    }

    private static String nameOf(Field field) {
        return field.getAnnotation(Option.class).names()[0];
    }

    /**
     * @param unsaid the same options, of which nothing was said
     * @throws IllegalArgumentException if an option of another method is other than that
     */
    private void refuseWhatIsOfOthers(Object options, Object unsaid) {
        for (Field field : fieldsOfOthers(options.getClass())) {
            try {
                if (Objects.equals(field.get(options), field.get(unsaid))) {
                    continue;
                }
            } catch (IllegalAccessException e) {
                throw new IllegalStateException(e);
            }
            String owners = Arrays.stream(field.getAnnotation(OfMethod.class).value())
                    .map(Method::toString)
                    .collect(Collectors.joining(", "))
                    .replaceFirst(", ([^,]*)$", " and $1");
            throw new IllegalArgumentException(
                    nameOf(field) + " belongs to --method " + owners + "; --method " + method()
                            + " has none"
                            + switch (method()) {
                                case BITFIT -> ": it trains all biases and norms";
                                case FULL -> ": --train-layers and --freeze say what is trained";
                                case PROMPT_TUNING, P_TUNING, PREFIX_TUNING -> ": a prompt or prefix sits on no module";
                                case BOTTLENECK -> ": --bottleneck-placement says where they stand";
                                default -> "";
                            });
        }
    }

    /** What needs no model to be found wrong. */
    void check(LoraOptions lora, long seed) {
        config(lora, seed, Integer.MAX_VALUE);
    }

    /**
     * @param lora        its own options, and the target modules, which others have too
     * @param modelLayers of the model that is adapted
     */
    AdapterConfig config(LoraOptions lora, long seed, int modelLayers) {
        Method wanted = method();
        refuseWhatIsOfOthers(this, new MethodOptions());
        refuseWhatIsOfOthers(lora, new LoraOptions());
        if (wanted == Method.LORA) {
            return lora.config(seed, modelLayers);
        }
        if (wanted == Method.BITFIT) {
            return new BitFitConfig();
        }
        if (wanted == Method.PROMPT_TUNING) {
            String start = promptInit != null ? promptInit : promptText != null ? "text" : "sample-vocab";
            return new PromptTuningConfig(
                    virtualTokens == null ? VIRTUAL_TOKENS : virtualTokens,
                    Choices.of("--prompt-tuning-init", start, PromptTuningConfig.Init.class),
                    promptText == null ? "" : promptText,
                    seed);
        }
        if (wanted == Method.BOTTLENECK) {
            BottleneckConfig usual = BottleneckConfig.defaults();
            return new BottleneckConfig(
                    placement == null
                            ? usual.placement()
                            : Choices.of("--bottleneck-placement", placement, BottleneckConfig.Placement.class),
                    reductionFactor == null ? usual.reductionFactor() : reductionFactor,
                    0,
                    nonLinearity == null
                            ? null
                            : Choices.of("--non-linearity", nonLinearity, BottleneckConfig.NonLinearity.class),
                    seed);
        }
        if (wanted == Method.PREFIX_TUNING) {
            return new PrefixTuningConfig(virtualTokens == null ? VIRTUAL_TOKENS : virtualTokens, seed);
        }
        if (wanted == Method.P_TUNING) {
            if (encoderType != null && !encoderType.equalsIgnoreCase("mlp")) {
                throw new IllegalArgumentException("--encoder-reparameterization-type " + encoderType
                        + (encoderType.equalsIgnoreCase("lstm")
                                ? " is not computed; the virtual tokens come out of an MLP, and what is saved, the"
                                        + " embeddings alone, is the same of both"
                                : " does not exist; it is MLP"));
            }
            return new PTuningConfig(
                    virtualTokens == null ? VIRTUAL_TOKENS : virtualTokens,
                    encoderHiddenSize == null ? 0 : encoderHiddenSize,
                    seed);
        }
        if (wanted == Method.FULL) {
            Set<FullConfig.Part> frozen = EnumSet.noneOf(FullConfig.Part.class);
            freeze.forEach(part -> frozen.add(Choices.of("--freeze", part.strip(), FullConfig.Part.class)));
            return new FullConfig(LoraOptions.layerNumbers("--train-layers", trainLayers), frozen);
        }
        return new Ia3Config(lora.targetModules(), feedforwardModules);
    }
}
