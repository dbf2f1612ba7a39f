package dev.lorica.adapter;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.Model;
import dev.lorica.ModelInfo;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.files.SafetensorsWriter;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** PEFT's prompts: {@code prompt_embeddings} [virtual tokens, embedding], of P-tuning what its encoder gave. */
final class PeftPrompt {
    static final Set<String> TYPES = Set.of("PROMPT_TUNING", "P_TUNING");
    private static final String KEY = "prompt_embeddings";

    private PeftPrompt() {}

    static Map<String, Object> write(Adapter adapter, SafetensorsWriter weights, String baseModel) {
        PeftClassifier classifier = new PeftClassifier(adapter.model(), PeftFolder.PROMPT_PREFIX);
        List<Adapter.Tensor> tensors = adapter.tensors();
        Adapter.Tensor tensor = tensors.stream()
                .filter(one -> one.name().equals(KEY))
                .findFirst()
                .orElseThrow();
        int prompt = tensors.indexOf(tensor);
        weights.add(KEY, List.of(tensor.rows(), tensor.columns()), () -> adapter.values(prompt));
        for (int i = 0; i < tensors.size(); i++) {
            if (tensors.get(i).isOfClassifier()) {
                classifier.write(adapter, i, weights);
            }
        }
        boolean encoded = adapter.info().method() == Method.P_TUNING;
        ModelInfo model = adapter.model().info();
        Map<String, Object> config = new LinkedHashMap<>();
        config.put("peft_type", encoded ? "P_TUNING" : "PROMPT_TUNING");
        config.put("task_type", adapter.labels() == null ? "CAUSAL_LM" : "SEQ_CLS");
        config.put("base_model_name_or_path", baseModel);
        config.put("inference_mode", true);
        config.put("num_virtual_tokens", tensor.rows());
        config.put("token_dim", tensor.columns());
        config.put("num_transformer_submodules", 1);
        config.put("num_attention_heads", model.heads());
        config.put("num_layers", model.layers());
        if (encoded) {
            config.put("encoder_reparameterization_type", "MLP");
            config.put("encoder_hidden_size", hidden(tensors));
            config.put("encoder_num_layers", 2);
            config.put("encoder_dropout", 0.0);
        } else {
            config.put("prompt_tuning_init", "RANDOM");
            config.put("prompt_tuning_init_text", null);
            config.put("tokenizer_name_or_path", null);
        }
        Set<String> modules = classifier.modules(adapter);
        if (!modules.isEmpty()) {
            config.put("modules_to_save", modules);
        }
        return config;
    }

    private static long hidden(List<Adapter.Tensor> tensors) {
        return tensors.stream()
                .filter(tensor -> tensor.name().equals("prompt_encoder.mlp_head.0.weight"))
                .findFirst()
                .orElseThrow()
                .rows();
    }

    static Adapter read(Model model, Path file, JsonNode json, SafetensorsFile weights) {
        String task = json.path("task_type").asText("CAUSAL_LM");
        if (json.hasNonNull("task_type") && !PeftFolder.TASKS.contains(task)) {
            throw new UnsupportedException(
                    file + ": task_type \"" + task + "\" is not supported; CAUSAL_LM and SEQ_CLS are");
        }
        JsonNode tokens = json.path("num_virtual_tokens");
        if (!tokens.canConvertToInt() || tokens.asInt() < 1) {
            throw new FileFormatException(
                    file + ": \"num_virtual_tokens\" is " + tokens + "; it must be a whole number from 1");
        }
        PeftClassifier classifier = new PeftClassifier(model, PeftFolder.PROMPT_PREFIX);
        Set<String> keys = classifier.keys(weights);
        keys.add(KEY);
        PeftFolder.checkKeys(weights, keys);
        SafetensorsFile.Tensor stored = weights.tensors().get(KEY);
        List<Long> shape = List.of(tokens.asLong(), (long) model.info().embedding());
        if (!stored.shape().equals(shape)) {
            throw new MismatchException(weights.path() + ": \"" + KEY + "\" has the shape " + stored.shape()
                    + "; this model needs " + shape);
        }
        float[] values = weights.read(stored);
        PeftFolder.checkFinite(weights, stored, values);
        Adapter adapter = Adapter.create(model, PromptTuningConfig.of(tokens.asInt()), classifier.labels(weights));
        try {
            adapter.setValues(0, values);
            for (int i = 1; i < adapter.tensors().size(); i++) {
                classifier.read(adapter, i, weights);
            }
            return adapter;
        } catch (RuntimeException e) {
            adapter.close();
            throw e;
        }
    }
}
