package dev.lorica.adapter;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.files.AtomicFile;
import java.io.CharConversionException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.regex.PatternSyntaxException;

/**
 * What PEFT's {@code adapter_config.json} says about a LoRA. Modules are asked for by their full names:
 * {@code model.layers.0.self_attn.q_proj}.
 *
 * @param file        for messages
 * @param r           rank, where {@code rankPattern} says nothing else
 * @param loraAlpha   alpha, where {@code alphaPattern} says nothing else
 * @param loraDropout while training
 * @param useRslora   scale by alpha / √rank
 * @param useDora     with magnitudes
 * @param fanInFanOut the layers' weights are stored [in, out]
 * @param defaultTargets {@code target_modules} is null or not there: those that PEFT takes then are meant
 * @param targetNames {@code target_modules} as a list of names; empty when it is a pattern
 * @param targetPattern {@code target_modules} as a pattern, {@code null} when it is a list
 * @param isAllLinear {@code target_modules} is "all-linear"
 * @param invocation  {@code alora_invocation_tokens}, empty when null or not there
 */
record PeftConfig(
        Path file,
        int r,
        double loraAlpha,
        double loraDropout,
        boolean useRslora,
        boolean useDora,
        boolean fanInFanOut,
        boolean defaultTargets,
        List<String> targetNames,
        BoundedPattern targetPattern,
        boolean isAllLinear,
        List<String> excludedNames,
        BoundedPattern excludedPattern,
        List<Integer> layersToTransform,
        Map<BoundedPattern, Integer> rankPattern,
        Map<BoundedPattern, Double> alphaPattern,
        List<String> modulesToSave,
        LoraConfig.Bias bias,
        List<Integer> invocation) {

    private static final JsonMapper JSON = JsonMapper.builder()
            .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .build();
    private static final long MAX_BYTES = 1 << 24;
    /** Ways of initialising that leave the base as it is. The others subtract from it what the adapter begins with. */
    private static final List<String> HARMLESS_INITS = List.of("true", "false", "gaussian", "orthogonal", "eva");

    static PeftConfig read(Path file) {
        JsonNode json = parse(file);
        refuseWhatIsNotComputed(file, json);
        JsonNode target = json.path("target_modules");
        JsonNode excluded = json.path("exclude_modules");
        return new PeftConfig(
                file,
                rank(file, "r", required(file, json, "r")),
                alpha(file, "lora_alpha", required(file, json, "lora_alpha")),
                dropout(file, json.path("lora_dropout")),
                json.path("use_rslora").asBoolean(false),
                json.path("use_dora").asBoolean(false),
                json.path("fan_in_fan_out").asBoolean(false),
                isAbsent(target),
                isAbsent(target) || target.isTextual() ? List.of() : names(file, "target_modules", target),
                pattern(
                        file,
                        target.isTextual() && target.asText().equals(LoraConfig.ALL_LINEAR)
                                ? JSON.getNodeFactory().textNode(".*")
                                : target),
                target.isTextual() && target.asText().equals(LoraConfig.ALL_LINEAR),
                isAbsent(excluded) || excluded.isTextual() ? List.of() : names(file, "exclude_modules", excluded),
                pattern(file, excluded),
                numbers(file, "layers_to_transform", json, "layer"),
                patterns(file, "rank_pattern", json, PeftConfig::rank),
                patterns(file, "alpha_pattern", json, PeftConfig::alpha),
                isAbsent(json.path("modules_to_save"))
                        ? List.of()
                        : names(file, "modules_to_save", json.get("modules_to_save")),
                bias(file, json),
                numbers(file, "alora_invocation_tokens", json, "token"));
    }

    // ---- what it says of a module

    /** Whether {@code target_modules} and what narrows it include the layer; "all-linear" leaves the output head out. */
    boolean targets(LinearLayer layer) {
        String module = layer.peft();
        if (excludedPattern != null
                ? excludedPattern.matches(module)
                : excludedNames.stream().anyMatch(name -> isNamed(module, name))) {
            return false;
        }
        if (targetPattern != null) {
            return targetPattern.matches(module) && !(isAllLinear && layer.isHead());
        }
        boolean named =
                defaultTargets ? layer.isDefault() : targetNames.stream().anyMatch(name -> isNamed(module, name));
        return targetNames.contains(module)
                || named && (layersToTransform.isEmpty() || layersToTransform.contains(layer.index()));
    }

    static boolean isNamed(String module, String name) {
        return module.equals(name) || module.endsWith("." + name);
    }

    int rank(String module) {
        return first(rankPattern, module, r);
    }

    double alpha(String module) {
        return first(alphaPattern, module, loraAlpha);
    }

    private static <T> T first(Map<BoundedPattern, T> patterns, String module, T otherwise) {
        for (Map.Entry<BoundedPattern, T> entry : patterns.entrySet()) {
            if (entry.getKey().matches(module)) {
                return entry.getValue();
            }
        }
        return otherwise;
    }

    // ---- reading it

    static JsonNode parse(Path file) {
        try {
            if (Files.size(file) > MAX_BYTES) {
                throw new FileFormatException(
                        file + " has " + Files.size(file) + " bytes; that is no adapter_config.json");
            }
            JsonNode json = JSON.readTree(Files.readAllBytes(file));
            if (!json.isObject()) {
                throw new FileFormatException(file + " is damaged: it is not a JSON object");
            }
            return json;
        } catch (JacksonException e) {
            throw new FileFormatException(
                    file + " is damaged: "
                            + e.getOriginalMessage().lines().findFirst().orElse("not JSON"),
                    e);
        } catch (CharConversionException e) {
            throw new FileFormatException(file + " is damaged: it is not UTF-8", e);
        } catch (IOException e) {
            throw new FileAccessException(file + " cannot be read: " + AtomicFile.reason(e), e);
        }
    }

    private static void refuseWhatIsNotComputed(Path file, JsonNode json) {
        String type = required(file, json, "peft_type").asText();
        if (!type.equals("LORA")) {
            throw new UnsupportedException(file + ": peft_type " + quoted(type)
                    + " is not supported; LORA, IA3, PROMPT_TUNING, P_TUNING and PREFIX_TUNING are");
        }
        String task = json.path("task_type").asText("CAUSAL_LM");
        if (!isAbsent(json.path("task_type")) && !PeftFolder.TASKS.contains(task)) {
            throw new UnsupportedException(
                    file + ": task_type " + quoted(task) + " is not supported; CAUSAL_LM and SEQ_CLS are");
        }
        JsonNode init = json.path("init_lora_weights");
        if (!isAbsent(init) && !HARMLESS_INITS.contains(init.asText())) {
            throw new UnsupportedException(
                    file + ": init_lora_weights " + init + " changes the base model too; save the adapter in PEFT with "
                            + "path_initial_model_for_weight_conversion, which makes it one for the original base");
        }
        for (String key : List.of(
                "lora_bias",
                "layers_pattern",
                "layer_replication",
                "target_parameters",
                "trainable_token_indices",
                "use_qalora",
                "use_bdlora",
                "kasa_config",
                "monteclora_config",
                "velora_config",
                "arrow_config")) {
            JsonNode value = json.path(key);
            boolean off = isAbsent(value)
                    || value.isBoolean() && !value.asBoolean()
                    || value.isContainerNode() && value.isEmpty()
                    || value.isTextual() && value.asText().isEmpty();
            if (!off) {
                throw new UnsupportedException(file + ": " + key + " is set, which is not supported");
            }
        }
    }

    private static LoraConfig.Bias bias(Path file, JsonNode json) {
        String given = json.path("bias").asText("none");
        for (LoraConfig.Bias bias : LoraConfig.Bias.values()) {
            if (bias.toString().equals(given) || given.equals("null") && bias == LoraConfig.Bias.NONE) {
                return bias;
            }
        }
        throw new FileFormatException(
                file + ": bias " + json.path("bias") + " is none of \"none\", \"lora_only\" and \"all\"");
    }

    private static boolean isAbsent(JsonNode node) {
        return node.isMissingNode() || node.isNull();
    }

    /** PEFT would put in a default that need not be what the adapter was trained with. */
    private static JsonNode required(Path file, JsonNode json, String key) {
        if (isAbsent(json.path(key))) {
            throw new FileFormatException(file + " has no \"" + key + "\"");
        }
        return json.get(key);
    }

    private static int rank(Path file, String key, JsonNode value) {
        if (!value.isIntegralNumber() || !value.canConvertToInt() || value.asInt() < 1) {
            throw new FileFormatException(
                    file + ": \"" + key + "\" is " + value + "; it must be a whole number from 1");
        }
        return value.asInt();
    }

    private static double alpha(Path file, String key, JsonNode value) {
        if (!value.isNumber() || !Double.isFinite(value.asDouble()) || value.asDouble() <= 0) {
            throw new FileFormatException(file + ": \"" + key + "\" is " + value + "; it must be a number above 0");
        }
        return value.asDouble();
    }

    private static double dropout(Path file, JsonNode value) {
        if (isAbsent(value)) {
            return 0;
        }
        if (!value.isNumber() || !(value.asDouble() >= 0 && value.asDouble() < 1)) {
            throw new FileFormatException(
                    file + ": \"lora_dropout\" is " + value + "; it must be at least 0 and below 1");
        }
        return value.asDouble();
    }

    static List<String> names(Path file, String key, JsonNode value) {
        List<String> names = new ArrayList<>();
        for (JsonNode name : value) {
            if (!name.isTextual()) {
                throw new FileFormatException(file + ": \"" + key + "\" holds " + name + ", which is no name");
            }
            names.add(name.asText());
        }
        if (!value.isArray()) {
            throw new FileFormatException(
                    file + ": \"" + key + "\" is " + value + "; it must be a list of names or a pattern");
        }
        return List.copyOf(names);
    }

    private static List<Integer> numbers(Path file, String key, JsonNode json, String what) {
        JsonNode value = json.path(key);
        if (isAbsent(value)) {
            return List.of();
        }
        List<Integer> numbers = new ArrayList<>();
        for (JsonNode number : value.isArray() ? value : JSON.createArrayNode().add(value)) {
            if (!number.isIntegralNumber() || !number.canConvertToInt()) {
                throw new FileFormatException(file + ": \"" + key + "\" holds " + number + ", which is no " + what);
            }
            numbers.add(number.asInt());
        }
        return List.copyOf(numbers);
    }

    private static BoundedPattern pattern(Path file, JsonNode value) {
        return value.isTextual() ? BoundedPattern.of(file, value.asText()) : null;
    }

    private interface Reader<T> {
        T read(Path file, String key, JsonNode value);
    }

    /** PEFT takes the first key that the module's name ends with, as a pattern and after a dot. */
    private static <T> Map<BoundedPattern, T> patterns(Path file, String key, JsonNode json, Reader<T> reader) {
        Map<BoundedPattern, T> patterns = new LinkedHashMap<>();
        json.path(key)
                .fields()
                .forEachRemaining(entry -> patterns.put(
                        BoundedPattern.of(file, "(.*\\.)?(" + entry.getKey() + ")"),
                        reader.read(file, key, entry.getValue())));
        return patterns;
    }

    private static String quoted(String text) {
        return "\"" + text.replaceAll("\\p{Cntrl}", " ") + "\"";
    }

    /** A regular expression from a stranger: one that takes too long is an error and not the end of the program's answers. */
    record BoundedPattern(Path file, Pattern pattern) {
        private static final int MAX_LENGTH = 1000;
        private static final int MAX_STEPS = 1_000_000;

        static BoundedPattern of(Path file, String regex) {
            try {
                if (regex.length() <= MAX_LENGTH) {
                    return new BoundedPattern(file, Pattern.compile(regex));
                }
            } catch (PatternSyntaxException e) {
                throw new FileFormatException(
                        file + ": " + quoted(regex) + " is no regular expression: " + e.getDescription(), e);
            }
            throw new FileFormatException(file + ": a pattern of " + regex.length() + " characters is too long");
        }

        boolean matches(String text) {
            try {
                return pattern.matcher(new Metered(text, new int[1])).matches();
            } catch (IllegalStateException | StackOverflowError e) {
                throw new FileFormatException(file + ": " + quoted(pattern.pattern()) + " takes too long to match");
            }
        }

        /** Text that can be looked at a limited number of times. */
        private record Metered(String text, int[] steps) implements CharSequence {
            @Override
            public int length() {
                return text.length();
            }

            @Override
            public char charAt(int index) {
                if (++steps[0] > MAX_STEPS) {
                    throw new IllegalStateException();
                }
                return text.charAt(index);
            }

            @Override
            public CharSequence subSequence(int start, int end) {
                return text.subSequence(start, end);
            }
        }
    }
}
