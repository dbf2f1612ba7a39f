package dev.lorica.cli;

import dev.lorica.adapter.AdapterConfig;
import dev.lorica.adapter.BitFitConfig;
import dev.lorica.adapter.FullConfig;
import dev.lorica.adapter.Ia3Config;
import dev.lorica.adapter.Method;
import dev.lorica.adapter.PTuningConfig;
import dev.lorica.adapter.PrefixTuningConfig;
import dev.lorica.adapter.PromptTuningConfig;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import picocli.CommandLine.Option;

/** What is trained, and the options of each way. */
@Section("Method")
final class MethodOptions {
    private static final int VIRTUAL_TOKENS = 20;

    @Option(
            names = "--method",
            paramLabel = "NAME",
            description =
                    "What is trained: lora, full (the model's own weights; the result is a model too), ia3 (factors of what"
                            + " goes in and out of layers), or bitfit (biases and norms). llama.cpp runs the last two once"
                            + " lorica merge has folded them in. prompt-tuning: embeddings in front of every text; p-tuning: the"
                            + " same out of a small network, which is trained; prefix-tuning: keys and values in"
                            + " front of every text. Default:"
                            + " ${DEFAULT-VALUE}")
    String method = "lora";

    @Option(
            names = "--feedforward-modules",
            paramLabel = "NAMES",
            arity = "1..*",
            split = ",",
            description = "IA3: those of the target modules whose input is multiplied, not their output.")
    List<String> feedforwardModules = new ArrayList<>();

    @Option(
            names = "--train-layers",
            paramLabel = "LAYERS",
            split = ",",
            description =
                    "full: train these layers alone, as 8-15, neither embeddings nor what is behind the layers. Default:"
                            + " everything")
    List<String> trainLayers = new ArrayList<>();

    @Option(
            names = "--freeze",
            paramLabel = "PARTS",
            split = ",",
            description = "full: do not train embed, head, or both (embed,head).")
    List<String> freeze = new ArrayList<>();

    @Option(
            names = "--num-virtual-tokens",
            paramLabel = "N",
            description = "prompt-tuning, p-tuning, prefix-tuning: so many of them. Default: twenty")
    Integer virtualTokens;

    @Option(
            names = "--prompt-tuning-init",
            paramLabel = "WAY",
            description =
                    "prompt-tuning: they begin as those of tokens of the vocabulary at random (sample-vocab), as those of a"
                            + " text (text), or large and random, as PEFT has it (random). Default: sample-vocab, text where"
                            + " one is given")
    String promptInit;

    @Option(
            names = "--prompt-tuning-init-text",
            paramLabel = "TEXT",
            description = "prompt-tuning: that text, cut or repeated to as many tokens.")
    String promptText;

    @Option(
            names = "--encoder-hidden-size",
            paramLabel = "N",
            description = "p-tuning: of the network that makes them. Default: that of the model's embeddings")
    Integer encoderHiddenSize;

    Method method() {
        return Choices.of("--method", method, Method.class);
    }

    /** Options of the other methods, which this one refuses. */
    Set<String> ofOthers() {
        Set<String> names = new LinkedHashSet<>();
        if (method() != Method.LORA) {
            names.addAll(LoraOptions.OWN);
        }
        if (method() != Method.IA3) {
            names.add("--feedforward-modules");
        }
        if (method() != Method.FULL) {
            names.addAll(List.of("--train-layers", "--freeze"));
        }
        if (method() != Method.PROMPT_TUNING) {
            names.addAll(List.of("--prompt-tuning-init", "--prompt-tuning-init-text"));
        }
        if (method() != Method.P_TUNING) {
            names.add("--encoder-hidden-size");
        }
        if (!hasVirtualTokens(method())) {
            names.add("--num-virtual-tokens");
        }
        if (method() != Method.LORA && method() != Method.IA3) {
            names.add("--target-modules");
        }
        return names;
    }

    /** What needs no model to be found wrong. */
    void check(LoraOptions lora, long seed) {
        config(lora, seed, Integer.MAX_VALUE);
    }

    private static boolean hasVirtualTokens(Method method) {
        return method == Method.PROMPT_TUNING || method == Method.P_TUNING || method == Method.PREFIX_TUNING;
    }

    private void checkPrompts(Method wanted) {
        if (wanted != Method.PROMPT_TUNING && (promptInit != null || promptText != null)) {
            throw new IllegalArgumentException(
                    (promptInit != null ? "--prompt-tuning-init" : "--prompt-tuning-init-text")
                            + " belongs to --method prompt-tuning");
        }
        if (wanted != Method.P_TUNING && encoderHiddenSize != null) {
            throw new IllegalArgumentException("--encoder-hidden-size belongs to --method p-tuning");
        }
        if (!hasVirtualTokens(wanted) && virtualTokens != null) {
            throw new IllegalArgumentException(
                    "--num-virtual-tokens belongs to --method prompt-tuning, p-tuning and prefix-tuning");
        }
    }

    /**
     * @param lora        its own options, and the target modules, which others have too
     * @param modelLayers of the model that is adapted
     */
    AdapterConfig config(LoraOptions lora, long seed, int modelLayers) {
        Method wanted = method();
        if (wanted != Method.IA3 && !feedforwardModules.isEmpty()) {
            throw new IllegalArgumentException("--feedforward-modules belongs to --method ia3");
        }
        if (wanted != Method.FULL && !(trainLayers.isEmpty() && freeze.isEmpty())) {
            throw new IllegalArgumentException(
                    (trainLayers.isEmpty() ? "--freeze" : "--train-layers") + " belongs to --method full");
        }
        checkPrompts(wanted);
        if (wanted == Method.LORA) {
            return lora.config(seed, modelLayers);
        }
        lora.refuseWhatIsItsOwn(wanted);
        if (wanted != Method.IA3 && !lora.targetModules.isEmpty()) {
            throw new IllegalArgumentException("--target-modules and --method " + wanted + " exclude each other: "
                    + (wanted == Method.FULL
                            ? "--train-layers and --freeze say what is trained"
                            : wanted == Method.BITFIT
                                    ? "it trains all biases and norms"
                                    : "a prompt or prefix sits on no module"));
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
        if (wanted == Method.PREFIX_TUNING) {
            return new PrefixTuningConfig(virtualTokens == null ? VIRTUAL_TOKENS : virtualTokens, seed);
        }
        if (wanted == Method.P_TUNING) {
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
