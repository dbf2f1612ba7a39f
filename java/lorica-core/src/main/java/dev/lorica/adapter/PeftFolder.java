package dev.lorica.adapter;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.json.JsonMapper;
import dev.lorica.Model;
import dev.lorica.data.Labels;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.files.AtomicFile;
import dev.lorica.files.GgufFile;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.files.SafetensorsWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * An adapter's folder as Hugging Face PEFT reads and writes it: {@value #CONFIG} and {@value #WEIGHTS}.
 *
 * <p>PEFT loads silently what does not fit. This reader names every key that is missing or unexpected, and refuses what it
 * does not compute.
 *
 * <p>B's rows and DoRA's magnitudes follow the order of the rows of the layer's weight, which is another in some GGUF files than in
 * Hugging Face's; A is the same.
 */
final class PeftFolder {
    static final String CONFIG = "adapter_config.json";
    static final String WEIGHTS = "adapter_model.safetensors";

    private static final JsonMapper JSON =
            JsonMapper.builder().enable(SerializationFeature.INDENT_OUTPUT).build();
    private static final int NAMED_KEYS = 3;
    static final String PREFIX = "base_model.model.";
    static final List<String> TASKS = List.of("CAUSAL_LM", "SEQ_CLS");
    /** Of prompts, which stand beside the model and are not in it. */
    static final String PROMPT_PREFIX = "base_model.";

    /** What PEFT stores of a layer. */
    private enum Part {
        A(".lora_A.weight"),
        B(".lora_B.weight"),
        MAGNITUDE(".lora_magnitude_vector");

        private final String suffix;

        Part(String suffix) {
            this.suffix = suffix;
        }

        static Part of(Adapter.Tensor tensor) {
            return tensor.isA() ? A : tensor.name().endsWith(".lora_b") ? B : MAGNITUDE;
        }

        String key(LinearLayer layer) {
            return PREFIX + layer.peft() + suffix;
        }
    }

    private static final Pattern BASES_OWN = Pattern.compile(
            ".*\\.(embed_tokens|embed_in|wte|word_embeddings|lm_head|embed_out)(\\.base_layer)?\\.weight");

    private PeftFolder() {}

    static boolean is(Path folder) {
        return Files.exists(folder.resolve(CONFIG));
    }

    // ---- writing

    static void write(Adapter adapter, Path folder, String baseModel) {
        SafetensorsWriter weights = new SafetensorsWriter().metadata("format", "pt");
        boolean bottleneck = adapter.info().method() == Method.BOTTLENECK;
        Map<String, Object> config =
                switch (adapter.info().method()) {
                    case LORA -> writeLora(adapter, weights, baseModel);
                    case IA3 -> PeftIa3.write(adapter, weights, baseModel);
                    case PREFIX_TUNING -> PeftPrefix.write(adapter, weights, baseModel);
                    case BOTTLENECK -> AdapterHubFolder.write(adapter, weights, baseModel);
                    case PROMPT_TUNING, P_TUNING -> PeftPrompt.write(adapter, weights, baseModel);
                    case BITFIT ->
                        throw new UnsupportedException(
                                "PEFT has no adapters of method bitfit; lorica merge makes a model"
                                        + " with these biases and norms");
                    case FULL ->
                        throw new UnsupportedException(
                                "PEFT has no adapters of method full; lorica merge makes a model with these weights");
                };
        weights.write(folder.resolve(bottleneck ? AdapterHubFolder.WEIGHTS : WEIGHTS));
        try {
            AtomicFile.write(folder.resolve(CONFIG), JSON.writeValueAsBytes(config));
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
        AddedTokens.write(adapter.model(), folder);
    }

    private static Map<String, Object> writeLora(Adapter adapter, SafetensorsWriter weights, String baseModel) {
        List<Adapter.Tensor> tensors = adapter.tensors();
        List<LinearLayer> layers = LinearLayer.of(adapter.model());
        PeftWhole whole = new PeftWhole(adapter.model());
        PeftClassifier classifier = new PeftClassifier(adapter.model(), PREFIX);
        for (int i = 0; i < tensors.size(); i++) {
            int index = i;
            Adapter.Tensor tensor = tensors.get(i);
            if (tensor.isOfClassifier()) {
                classifier.write(adapter, index, weights);
                continue;
            }
            if (tensor.isWhole()) {
                whole.write(adapter, index, weights);
                continue;
            }
            LinearLayer layer = LinearLayer.ofTensor(layers, tensor.name());
            Part part = Part.of(tensor);
            weights.add(
                    part.key(layer),
                    part == Part.MAGNITUDE ? List.of(tensor.rows()) : List.of(tensor.rows(), tensor.columns()),
                    () -> part == Part.A ? adapter.values(index) : layer.order().toHuggingFace(adapter.values(index)));
        }
        return config(adapter, whole, classifier, layers, baseModel);
    }

    private static Map<String, Object> config(
            Adapter adapter, PeftWhole whole, PeftClassifier classifier, List<LinearLayer> all, String baseModel) {
        List<Adapter.Tensor> tensors = adapter.tensors();
        AdapterInfo info = adapter.info();
        double alpha = info.alpha() != 0 ? info.alpha() : tensors.get(0).alpha();
        Map<String, Object> ranks = new LinkedHashMap<>();
        Map<String, Object> alphas = new LinkedHashMap<>();
        Set<LinearLayer> layers = new LinkedHashSet<>();
        for (Adapter.Tensor tensor : tensors) {
            if (!tensor.isA()) {
                continue;
            }
            LinearLayer layer = LinearLayer.ofTensor(all, tensor.name());
            layers.add(layer);
            if (tensor.rows() != info.rank()) {
                ranks.put(layer.peft(), tensor.rows());
            }
            if (tensor.alpha() != alpha) {
                alphas.put(layer.peft(), number(tensor.alpha()));
            }
        }
        Map<String, Object> config = new LinkedHashMap<>();
        config.put("peft_type", "LORA");
        config.put("task_type", adapter.labels() == null ? "CAUSAL_LM" : "SEQ_CLS");
        config.put("base_model_name_or_path", baseModel);
        config.put("inference_mode", true);
        config.put("r", info.rank());
        config.put("lora_alpha", number(alpha));
        config.put("lora_dropout", number(info.dropout()));
        config.put("target_modules", targetModules(layers, all));
        config.put("rank_pattern", ranks);
        config.put("alpha_pattern", alphas);
        config.put("use_rslora", info.useRslora());
        config.put("use_dora", info.useDora());
        if (!info.invocationTokens().isEmpty()) {
            config.put("alora_invocation_tokens", info.invocationTokens());
        }
        Set<String> modules = new LinkedHashSet<>(whole.modules(tensors));
        modules.addAll(classifier.modules(adapter));
        config.put("bias", whole.bias(tensors).toString());
        config.put("fan_in_fan_out", layers.stream().anyMatch(LinearLayer::transposed));
        config.put("init_lora_weights", true);
        config.put("modules_to_save", modules.isEmpty() ? null : modules);
        return config;
    }

    /** Short names where they say it, of which PEFT takes every layer that ends with them; full ones otherwise. */
    static Set<String> targetModules(Set<LinearLayer> layers, List<LinearLayer> all) {
        Set<String> names = new LinkedHashSet<>();
        for (LinearLayer layer : layers) {
            names.add(layer.ends().stream()
                    .filter(end -> all.stream()
                            .filter(other -> PeftConfig.isNamed(other.peft(), end))
                            .allMatch(layers::contains))
                    .findFirst()
                    .orElse(layer.peft()));
        }
        return names;
    }

    /** 32 and not 32.0; 0.05 and not the digits that it has as a float made wider. */
    private static Number number(double value) {
        if (value == Math.rint(value) && Math.abs(value) < 1L << 53) {
            return (long) value;
        }
        return (float) value == value ? Double.valueOf(Float.toString((float) value)) : Double.valueOf(value);
    }

    /** The name by which Hugging Face knows the model, as far as its file tells; its own name otherwise. */
    static String baseModelOf(Model model) {
        try (GgufFile file = GgufFile.open(model.file())) {
            Map<String, String> metadata = file.metadata(0);
            for (String key :
                    List.of("general.source.huggingface.repository", "general.source.repo_url", "general.repo_url")) {
                String value = metadata.containsKey(key)
                        ? JSON.readTree(metadata.get(key)).asText()
                        : "";
                String name = value.replaceFirst("^https?://huggingface\\.co/", "");
                if (name.matches("[\\w.-]+/[\\w.-]+")) {
                    return name;
                }
            }
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
        String name = model.info().name();
        return name.isEmpty() ? model.file().getFileName().toString().replaceFirst("\\.gguf$", "") : name;
    }

    // ---- reading

    static Adapter read(Model model, Path folder) {
        JsonNode json = PeftConfig.parse(folder.resolve(CONFIG));
        if (AdapterHubFolder.is(json)) {
            try (SafetensorsFile weights = AdapterHubFolder.open(folder)) {
                return AdapterHubFolder.read(model, folder.resolve(CONFIG), json, weights);
            }
        }
        if (json.path("peft_type").asText().equals(PeftIa3.TYPE)) {
            try (SafetensorsFile weights = openWeights(folder)) {
                return PeftIa3.read(model, folder.resolve(CONFIG), json, weights);
            }
        }
        if (json.path("peft_type").asText().equals(PeftPrefix.TYPE)) {
            try (SafetensorsFile weights = openWeights(folder)) {
                return PeftPrefix.read(model, folder.resolve(CONFIG), json, weights);
            }
        }
        if (PeftPrompt.TYPES.contains(json.path("peft_type").asText())) {
            try (SafetensorsFile weights = openWeights(folder)) {
                return PeftPrompt.read(model, folder.resolve(CONFIG), json, weights);
            }
        }
        PeftConfig config = PeftConfig.read(folder.resolve(CONFIG));
        List<LinearLayer> all = LinearLayer.of(model);
        Set<LinearLayer> targets = targets(config, all, model.info().layers());
        try (SafetensorsFile weights = openWeights(folder)) {
            PeftClassifier classifier = new PeftClassifier(model, PREFIX);
            Labels labels = classifier.labels(weights);
            PeftWhole whole = new PeftWhole(model);
            List<String> modules = whole.named(config.modulesToSave());
            Set<String> adapted = targets.stream().map(LinearLayer::gguf).collect(Collectors.toSet());
            Set<String> others = whole.keys(modules, config.bias(), adapted);
            if (labels != null) {
                others.addAll(classifier.keys(weights));
            }
            checkKeys(weights, targets, config.useDora(), others);
            List<String> names = new ArrayList<>();
            boolean changesNothing = true;
            for (LinearLayer layer : targets) {
                int rank = config.rank(layer.peft());
                double alpha = config.alpha(layer.peft());
                checkShapes(weights, layer, rank);
                boolean asTheOthers = rank == config.r() && alpha == config.loraAlpha();
                names.add(layer.gguf()
                        + (asTheOthers ? "" : ":" + rank)
                        + (alpha == config.loraAlpha() ? "" : ":" + alpha));
            }
            Adapter adapter = Adapter.create(
                    model,
                    LoraConfig.builder()
                            .rank(config.r())
                            .alpha(config.loraAlpha())
                            .dropout(config.loraDropout())
                            .useRslora(config.useRslora())
                            .useDora(config.useDora())
                            .targetModules(names)
                            .modulesToSave(modules)
                            .bias(config.bias())
                            .aloraInvocationTokens(config.invocation())
                            .build(),
                    labels);
            try {
                List<Adapter.Tensor> tensors = adapter.tensors();
                for (int i = 0; i < tensors.size(); i++) {
                    Adapter.Tensor tensor = tensors.get(i);
                    if (tensor.isOfClassifier()) {
                        classifier.read(adapter, i, weights);
                        changesNothing = false;
                        continue;
                    }
                    if (tensor.isWhole()) {
                        float[] values = whole.read(tensor, tensors, weights);
                        changesNothing &= Arrays.equals(values, adapter.values(i));
                        adapter.setValues(i, values);
                        continue;
                    }
                    Part part = Part.of(tensor);
                    LinearLayer layer = LinearLayer.ofTensor(all, tensor.name());
                    SafetensorsFile.Tensor stored = weights.tensors().get(part.key(layer));
                    List<Long> shape =
                            part == Part.MAGNITUDE ? List.of(tensor.rows()) : List.of(tensor.rows(), tensor.columns());
                    if (!stored.shape().equals(shape)) {
                        throw new MismatchException(weights.path() + ": \"" + stored.name() + "\" has the shape "
                                + stored.shape() + "; this model needs " + shape);
                    }
                    float[] values = weights.read(stored);
                    checkFinite(weights, stored, values);
                    float[] ours = part == Part.A ? values : layer.order().toGguf(values);
                    changesNothing &= switch (part) {
                        case A -> true;
                        case B -> isZero(values);
                        case MAGNITUDE -> isCloseTo(ours, adapter.values(i));
                    };
                    adapter.setValues(i, ours);
                }
                if (changesNothing) {
                    throw new FileFormatException(
                            weights.path() + " has no effect: every B is zero; was it saved before it was trained?");
                }
                return adapter;
            } catch (RuntimeException e) {
                adapter.close();
                throw e;
            }
        }
    }

    private static Set<LinearLayer> targets(PeftConfig config, List<LinearLayer> all, int blocks) {
        Set<LinearLayer> targets = new LinkedHashSet<>();
        Set<String> unused = new LinkedHashSet<>(config.targetNames());
        for (LinearLayer layer : all) {
            unused.removeIf(name -> PeftConfig.isNamed(layer.peft(), name));
            if (config.targets(layer)) {
                targets.add(layer);
            }
        }
        if (!unused.isEmpty()) {
            throw new MismatchException(config.file() + ": target_modules names " + some(unused)
                    + ", which is no linear layer of this model's " + blocks
                    + " blocks, nor its output head; the embedding cannot be adapted");
        }
        if (targets.isEmpty()) {
            throw new MismatchException(config.file() + ": target_modules fits no layer of this model");
        }
        // The head is stored as any other's, and PEFT knows.
        if (config.fanInFanOut()
                && !targets.stream().filter(layer -> !layer.isHead()).allMatch(LinearLayer::transposed)) {
            throw new UnsupportedException(
                    config.file() + ": fan_in_fan_out is set, which is not supported for this model's layers");
        }
        return targets;
    }

    private static SafetensorsFile openWeights(Path folder) {
        if (!Files.exists(folder.resolve(WEIGHTS))) {
            boolean pickled = Files.exists(folder.resolve("adapter_model.bin"));
            throw new FileAccessException(folder + " holds no " + WEIGHTS
                    + (pickled
                            ? "; adapter_model.bin is a pickle, which can run code and is not read: save the adapter"
                                    + " again with safetensors"
                            : ""));
        }
        return SafetensorsFile.open(folder.resolve(WEIGHTS));
    }

    private static void checkKeys(SafetensorsFile weights, Set<LinearLayer> targets, boolean dora, Set<String> others) {
        Set<String> missing = new LinkedHashSet<>(others);
        targets.forEach(layer -> {
            missing.add(Part.A.key(layer));
            missing.add(Part.B.key(layer));
            if (dora) {
                missing.add(Part.MAGNITUDE.key(layer));
            }
        });
        checkKeys(weights, missing);
    }

    /** @param keys that there must be, and no other */
    static void checkKeys(SafetensorsFile weights, Set<String> keys) {
        Set<String> missing = new LinkedHashSet<>(keys);
        Set<String> unexpected = new LinkedHashSet<>(weights.tensors().keySet());
        if (keys.stream().anyMatch(key -> key.contains(".lm_head.") || key.contains(".embed_out."))) {
            // PEFT saves the base's own embedding and head with an adapter on one of them.
            unexpected.removeIf(key -> BASES_OWN.matcher(key).matches());
        }
        unexpected.removeAll(missing);
        missing.removeAll(weights.tensors().keySet());
        List<String> faults = new ArrayList<>();
        if (!missing.isEmpty()) {
            faults.add("missing " + some(missing));
        }
        if (!unexpected.isEmpty()) {
            faults.add("unexpected " + some(unexpected));
        }
        if (!faults.isEmpty()) {
            throw new MismatchException(weights.path() + " does not hold what " + CONFIG + " and the model ask for: "
                    + String.join("; ", faults));
        }
    }

    private static String some(Set<String> names) {
        String text = String.join(
                ", ",
                names.stream().limit(NAMED_KEYS).map(name -> "\"" + name + "\"").toList());
        return names.size() <= NAMED_KEYS ? text : text + " and " + (names.size() - NAMED_KEYS) + " more";
    }

    /** Before anything of that size is allocated. */
    private static void checkShapes(SafetensorsFile weights, LinearLayer layer, int rank) {
        List<Long> a = weights.tensors().get(Part.A.key(layer)).shape();
        List<Long> b = weights.tensors().get(Part.B.key(layer)).shape();
        if (a.size() != 2 || b.size() != 2 || a.get(0) != rank || b.get(1) != rank) {
            throw new MismatchException(weights.path() + ": " + layer.peft() + " has A " + a + " and B " + b + ", but "
                    + CONFIG + " gives it the rank " + rank);
        }
    }

    static void checkFinite(SafetensorsFile weights, SafetensorsFile.Tensor tensor, float[] values) {
        for (int i = 0; i < values.length; i++) {
            if (!Float.isFinite(values[i])) {
                throw new FileFormatException(weights.path() + ": \"" + tensor.name() + "\": value " + i + " is "
                        + values[i] + ", a finite number is needed");
            }
        }
    }

    /** Up to rounding: PEFT computes the norms of the weights, at which magnitudes begin, in another order. */
    private static boolean isCloseTo(float[] values, float[] others) {
        for (int i = 0; i < values.length; i++) {
            if (Math.abs(values[i] - others[i]) > 1e-5f * Math.abs(others[i])) {
                return false;
            }
        }
        return true;
    }

    private static boolean isZero(float[] values) {
        for (float value : values) {
            if (value != 0) {
                return false;
            }
        }
        return true;
    }
}
