package dev.lorica.adapter;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.Model;
import dev.lorica.ModelInfo;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.files.SafetensorsWriter;
import dev.lorica.internal.RowOrder;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * PEFT's prefixes: {@code prompt_embeddings} [virtual tokens, layers × (keys, values)], of a projection what it gave. Keys follow
 * the order of the rows that make them, which is another in some GGUF files than in Hugging Face's.
 */
final class PeftPrefix {
    static final String TYPE = "PREFIX_TUNING";
    private static final String KEY = "prompt_embeddings";

    private PeftPrefix() {}

    static Map<String, Object> write(Adapter adapter, SafetensorsWriter weights, String baseModel) {
        PeftClassifier classifier = new PeftClassifier(adapter.model(), PeftFolder.PROMPT_PREFIX);
        List<Adapter.Tensor> tensors = prefix(adapter);
        for (int i = tensors.size(); i < adapter.tensors().size(); i++) {
            classifier.write(adapter, i, weights);
        }
        long virtual = tensors.get(0).rows();
        long columns = tensors.stream().mapToLong(Adapter.Tensor::columns).sum();
        weights.add(KEY, List.of(virtual, columns), () -> {
            float[] all = new float[Math.toIntExact(virtual * columns)];
            copy(adapter, all, true);
            return all;
        });
        ModelInfo model = adapter.model().info();
        Map<String, Object> config = new LinkedHashMap<>();
        config.put("peft_type", TYPE);
        config.put("task_type", adapter.labels() == null ? "CAUSAL_LM" : "SEQ_CLS");
        config.put("base_model_name_or_path", baseModel);
        config.put("inference_mode", true);
        config.put("num_virtual_tokens", virtual);
        config.put("token_dim", tensors.get(0).columns());
        config.put("num_transformer_submodules", 1);
        config.put("num_attention_heads", model.kvHeads());
        config.put("num_layers", model.layers());
        config.put("encoder_hidden_size", tensors.get(0).columns());
        config.put("prefix_projection", false);
        Set<String> modules = classifier.modules(adapter);
        if (!modules.isEmpty()) {
            config.put("modules_to_save", modules);
        }
        return config;
    }

    /** The keys and values, behind which a classifier stands. */
    private static List<Adapter.Tensor> prefix(Adapter adapter) {
        return adapter.tensors().stream()
                .filter(tensor -> !tensor.isOfClassifier())
                .toList();
    }

    static Adapter read(Model model, Path file, JsonNode json, SafetensorsFile weights) {
        String task = json.path("task_type").asText("CAUSAL_LM");
        if (json.hasNonNull("task_type") && !PeftFolder.TASKS.contains(task)) {
            throw new UnsupportedException(
                    file + ": task_type \"" + task + "\" is not supported; CAUSAL_LM and SEQ_CLS are");
        }
        JsonNode virtual = json.path("num_virtual_tokens");
        if (!virtual.canConvertToInt() || virtual.asInt() < 1) {
            throw new FileFormatException(
                    file + ": \"num_virtual_tokens\" is " + virtual + "; it must be a whole number from 1");
        }
        PeftClassifier classifier = new PeftClassifier(model, PeftFolder.PROMPT_PREFIX);
        Set<String> keys = classifier.keys(weights);
        keys.add(KEY);
        PeftFolder.checkKeys(weights, keys);
        SafetensorsFile.Tensor stored = weights.tensors().get(KEY);
        Adapter adapter = Adapter.create(model, PrefixTuningConfig.of(virtual.asInt()), classifier.labels(weights));
        try {
            List<Adapter.Tensor> tensors = prefix(adapter);
            long columns = tensors.stream().mapToLong(Adapter.Tensor::columns).sum();
            List<Long> shape = List.of(virtual.asLong(), columns);
            if (!stored.shape().equals(shape)) {
                throw new MismatchException(weights.path() + ": \"" + KEY + "\" has the shape " + stored.shape()
                        + "; this model needs " + shape);
            }
            float[] values = weights.read(stored);
            PeftFolder.checkFinite(weights, stored, values);
            copy(adapter, values, false);
            for (int i = tensors.size(); i < adapter.tensors().size(); i++) {
                classifier.read(adapter, i, weights);
            }
            return adapter;
        } catch (RuntimeException e) {
            adapter.close();
            throw e;
        }
    }

    /** Between the adapter and PEFT's rows, out of the adapter or into it. */
    private static void copy(Adapter adapter, float[] all, boolean out) {
        List<LinearLayer> layers = LinearLayer.of(adapter.model());
        List<Adapter.Tensor> tensors = prefix(adapter);
        int rows = (int) tensors.get(0).rows();
        int stride = all.length / rows;
        int first = 0;
        for (int i = 0; i < tensors.size(); i++) {
            Adapter.Tensor tensor = tensors.get(i);
            int columns = (int) tensor.columns();
            RowOrder order = order(layers, tensor.name());
            float[] values = adapter.values(i);
            for (int row = 0; row < rows; row++) {
                float[] part = new float[columns];
                System.arraycopy(out ? values : all, out ? row * columns : row * stride + first, part, 0, columns);
                part = order == null ? part : out ? order.toHuggingFace(part) : order.toGguf(part);
                System.arraycopy(part, 0, out ? all : values, out ? row * stride + first : row * columns, columns);
            }
            if (!out) {
                adapter.setValues(i, values);
            }
            first += columns;
        }
    }

    /** Of the layer that makes keys; {@code null} for values, and where one layer makes queries, keys and values. */
    private static RowOrder order(List<LinearLayer> layers, String tensor) {
        String maker = tensor.replaceFirst("prefix_k$", "attn_k");
        return layers.stream()
                .filter(layer -> layer.gguf().equals(maker))
                .findFirst()
                .map(LinearLayer::order)
                .orElse(null);
    }
}
