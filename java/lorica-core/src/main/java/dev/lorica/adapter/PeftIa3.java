package dev.lorica.adapter;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.Model;
import dev.lorica.data.Labels;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.files.SafetensorsWriter;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Predicate;

/**
 * PEFT's IA3: a vector {@code <module>.ia3_l} for each module, [out, 1], whose elements follow the order of the rows, or [1, in] of a
 * feed-forward module.
 */
final class PeftIa3 {
    static final String TYPE = "IA3";

    private PeftIa3() {}

    private static String key(LinearLayer layer) {
        return "base_model.model." + layer.peft() + ".ia3_l";
    }

    // ---- writing

    /** Adds the vectors, and gives what the configuration is to say. */
    static Map<String, Object> write(Adapter adapter, SafetensorsWriter weights, String baseModel) {
        List<LinearLayer> all = LinearLayer.of(adapter.model());
        PeftClassifier classifier = new PeftClassifier(adapter.model(), PeftFolder.PREFIX);
        List<Adapter.Tensor> tensors = adapter.tensors();
        Set<LinearLayer> outputs = new LinkedHashSet<>();
        Set<LinearLayer> inputs = new LinkedHashSet<>();
        for (int i = 0; i < tensors.size(); i++) {
            int index = i;
            Adapter.Tensor tensor = tensors.get(i);
            if (tensor.isOfClassifier()) {
                classifier.write(adapter, index, weights);
                continue;
            }
            LinearLayer layer = LinearLayer.ofTensor(all, tensor.name());
            boolean ofInput = tensor.rows() == 1;
            (ofInput ? inputs : outputs).add(layer);
            weights.add(
                    key(layer),
                    List.of(tensor.rows(), tensor.columns()),
                    () -> ofInput ? adapter.values(index) : layer.order().toHuggingFace(adapter.values(index)));
        }
        Set<String> feedforward = PeftFolder.targetModules(inputs, all);
        Set<String> targets = PeftFolder.targetModules(outputs, all);
        targets.addAll(feedforward);
        Map<String, Object> config = new LinkedHashMap<>();
        config.put("peft_type", TYPE);
        config.put("task_type", adapter.labels() == null ? "CAUSAL_LM" : "SEQ_CLS");
        config.put("base_model_name_or_path", baseModel);
        config.put("inference_mode", true);
        config.put("target_modules", targets);
        config.put("feedforward_modules", feedforward);
        config.put(
                "fan_in_fan_out", all.stream().filter(layer -> !layer.isHead()).allMatch(LinearLayer::transposed));
        config.put("init_ia3_weights", true);
        Set<String> modules = classifier.modules(adapter);
        config.put("modules_to_save", modules.isEmpty() ? null : modules);
        return config;
    }

    // ---- reading

    static Adapter read(Model model, Path file, JsonNode json, SafetensorsFile weights) {
        String task = json.path("task_type").asText("CAUSAL_LM");
        if (json.hasNonNull("task_type") && !PeftFolder.TASKS.contains(task)) {
            throw new UnsupportedException(
                    file + ": task_type \"" + task + "\" is not supported; CAUSAL_LM and SEQ_CLS are");
        }
        List<LinearLayer> all = LinearLayer.of(model);
        PeftClassifier classifier = new PeftClassifier(model, PeftFolder.PREFIX);
        Labels labels = classifier.labels(weights);
        JsonNode saved = json.path("modules_to_save");
        for (JsonNode name : saved) {
            if (labels == null || !classifier.isNamed(name.asText())) {
                throw new UnsupportedException(
                        file + ": modules_to_save has " + name + "; beside IA3 a classifier alone is supported");
            }
        }
        Predicate<String> targeted = matcher(file, json, "target_modules");
        Predicate<String> excluded = matcher(file, json, "exclude_modules");
        Predicate<String> ofInput = matcher(file, json, "feedforward_modules");
        List<LinearLayer> layers = all.stream()
                .filter(layer -> targeted.test(layer.peft()) && !excluded.test(layer.peft()))
                .toList();
        if (layers.isEmpty()) {
            throw new MismatchException(file + ": target_modules fits no layer of this model");
        }
        Set<String> keys = new LinkedHashSet<>();
        layers.forEach(layer -> keys.add(key(layer)));
        if (labels != null) {
            keys.addAll(classifier.keys(weights));
        }
        PeftFolder.checkKeys(weights, keys);
        List<String> targets = layers.stream().map(LinearLayer::gguf).toList();
        List<String> feedforward = layers.stream()
                .filter(layer -> ofInput.test(layer.peft()))
                .map(LinearLayer::gguf)
                .toList();
        Adapter adapter = Adapter.create(model, new Ia3Config(targets, feedforward), labels);
        try {
            List<Adapter.Tensor> tensors = adapter.tensors();
            for (int i = 0; i < tensors.size(); i++) {
                Adapter.Tensor tensor = tensors.get(i);
                if (tensor.isOfClassifier()) {
                    classifier.read(adapter, i, weights);
                    continue;
                }
                LinearLayer layer = LinearLayer.ofTensor(layers, tensor.name());
                SafetensorsFile.Tensor stored = weights.tensors().get(key(layer));
                List<Long> shape = List.of(tensor.rows(), tensor.columns());
                if (!stored.shape().equals(shape)) {
                    throw new MismatchException(weights.path() + ": \"" + stored.name() + "\" has the shape "
                            + stored.shape() + "; this model needs " + shape);
                }
                float[] values = weights.read(stored);
                PeftFolder.checkFinite(weights, stored, values);
                adapter.setValues(i, tensor.rows() == 1 ? values : layer.order().toGguf(values));
            }
            if (labels == null && !adapter.hasEffect()) {
                throw new FileFormatException(
                        weights.path() + " has no effect: every factor is 1; was it saved before it was trained?");
            }
            return adapter;
        } catch (RuntimeException e) {
            adapter.close();
            throw e;
        }
    }

    /** A list of names or a pattern, as PEFT has both; nothing: fits nothing. */
    private static Predicate<String> matcher(Path file, JsonNode json, String key) {
        JsonNode value = json.path(key);
        if (value.isMissingNode() || value.isNull()) {
            return module -> false;
        }
        if (value.isTextual()) {
            return PeftConfig.BoundedPattern.of(file, value.asText())::matches;
        }
        List<String> names = PeftConfig.names(file, key, value);
        return module -> names.stream().anyMatch(name -> PeftConfig.isNamed(module, name));
    }
}
