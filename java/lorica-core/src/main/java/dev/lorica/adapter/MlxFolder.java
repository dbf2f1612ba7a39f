package dev.lorica.adapter;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.Model;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.internal.json.Json;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * An adapter's folder as mlx-lm writes it: {@value #WEIGHTS} with {@code model.layers.0.self_attn.q_proj.lora_a} [in, r] and
 * {@code lora_b} [r, out], the transposes of PEFT's, {@code m} [out] of a DoRA, and {@code adapter_config.json}, whose {@code scale}
 * multiplies the product itself.
 */
final class MlxFolder {
    static final String WEIGHTS = "adapters.safetensors";
    private static final Pattern NAME = Pattern.compile("(.+)\\.(lora_a|lora_b|m)");

    private MlxFolder() {}

    static boolean is(Path folder) {
        return Files.exists(folder.resolve(WEIGHTS)) && !Files.exists(folder.resolve(PeftFolder.WEIGHTS));
    }

    static Adapter read(Model model, Path folder) {
        JsonNode config = config(folder.resolve(PeftFolder.CONFIG));
        List<LinearLayer> all = LinearLayer.of(model);
        try (SafetensorsFile weights = SafetensorsFile.open(folder.resolve(WEIGHTS))) {
            Map<LinearLayer, Map<String, SafetensorsFile.Tensor>> layers =
                    layers(weights, all, model.info().layers());
            double scale = config.path("lora_parameters").path("scale").asDouble(0);
            if (!(scale > 0) || !Double.isFinite(scale)) {
                throw new FileFormatException(
                        folder.resolve(PeftFolder.CONFIG) + " has no \"lora_parameters\" with a \"scale\" above 0");
            }
            boolean dora = config.path("fine_tune_type").asText("lora").equals("dora");
            List<String> names = new ArrayList<>();
            int largest = 1;
            for (Map.Entry<LinearLayer, Map<String, SafetensorsFile.Tensor>> entry : layers.entrySet()) {
                int rank = rank(weights, entry.getKey(), entry.getValue(), dora);
                largest = Math.max(largest, rank);
                names.add(entry.getKey().gguf() + ":" + rank + ":" + scale * rank);
            }
            Adapter adapter = Adapter.create(
                    model,
                    LoraConfig.builder()
                            .rank(largest)
                            .alpha(scale * largest)
                            .dropout(config.path("lora_parameters")
                                    .path("dropout")
                                    .asDouble(0))
                            .useDora(dora)
                            .targetModules(names)
                            .build());
            try {
                fill(adapter, weights, layers, all);
                return adapter;
            } catch (RuntimeException e) {
                adapter.close();
                throw e;
            }
        }
    }

    private static void fill(
            Adapter adapter,
            SafetensorsFile weights,
            Map<LinearLayer, Map<String, SafetensorsFile.Tensor>> layers,
            List<LinearLayer> all) {
        List<Adapter.Tensor> tensors = adapter.tensors();
        for (int i = 0; i < tensors.size(); i++) {
            Adapter.Tensor tensor = tensors.get(i);
            LinearLayer layer = LinearLayer.ofTensor(all, tensor.name());
            String part = tensor.isA() ? "lora_a" : tensor.name().endsWith(".lora_b") ? "lora_b" : "m";
            SafetensorsFile.Tensor stored = layers.get(layer).get(part);
            List<Long> shape = part.equals("m") ? List.of(tensor.rows()) : List.of(tensor.columns(), tensor.rows());
            if (!stored.shape().equals(shape)) {
                throw new MismatchException(weights.path() + ": \"" + stored.name() + "\" has the shape "
                        + stored.shape() + "; this model needs " + shape);
            }
            float[] values = weights.read(stored);
            PeftFolder.checkFinite(weights, stored, values);
            float[] ours = part.equals("m") ? values : transposed(values, (int) tensor.columns(), (int) tensor.rows());
            adapter.setValues(i, tensor.isA() ? ours : layer.order().toGguf(ours));
        }
    }

    private static JsonNode config(Path file) {
        try {
            JsonNode config = Json.MAPPER.readTree(Files.readAllBytes(file));
            String type = config.path("fine_tune_type").asText("lora");
            if (!type.equals("lora") && !type.equals("dora")) {
                throw new UnsupportedException(
                        file + ": fine_tune_type \"" + type + "\" is not supported; lora and dora are");
            }
            return config;
        } catch (JacksonException e) {
            throw new FileFormatException(
                    file + " is damaged: "
                            + e.getOriginalMessage().lines().findFirst().orElse("not JSON"),
                    e);
        } catch (IOException e) {
            throw new FileAccessException(file + " cannot be read: " + e.getMessage(), e);
        }
    }

    private static Map<LinearLayer, Map<String, SafetensorsFile.Tensor>> layers(
            SafetensorsFile weights, List<LinearLayer> all, int blocks) {
        Map<String, LinearLayer> known = new HashMap<>();
        all.forEach(layer -> known.put(layer.peft(), layer));
        Map<LinearLayer, Map<String, SafetensorsFile.Tensor>> layers = new LinkedHashMap<>();
        for (SafetensorsFile.Tensor tensor : weights.tensors().values()) {
            Matcher name = NAME.matcher(tensor.name());
            LinearLayer layer = name.matches() ? known.get(name.group(1)) : null;
            if (layer == null) {
                throw new MismatchException(weights.path() + " holds \"" + tensor.name()
                        + "\", which is of no linear layer of this model's " + blocks + " blocks");
            }
            layers.computeIfAbsent(layer, l -> new LinkedHashMap<>()).put(name.group(2), tensor);
        }
        if (layers.isEmpty()) {
            throw new FileFormatException(weights.path() + " holds no tensors");
        }
        return layers;
    }

    private static int rank(
            SafetensorsFile weights, LinearLayer layer, Map<String, SafetensorsFile.Tensor> parts, boolean dora) {
        for (String part : dora ? List.of("lora_a", "lora_b", "m") : List.of("lora_a", "lora_b")) {
            if (!parts.containsKey(part)) {
                throw new MismatchException(weights.path() + ": " + layer.peft() + " has no " + part);
            }
        }
        List<Long> a = parts.get("lora_a").shape();
        List<Long> b = parts.get("lora_b").shape();
        if (a.size() != 2
                || b.size() != 2
                || !a.get(1).equals(b.get(0))
                || a.get(1) < 1
                || a.get(1) > 1 << 20
                || parts.containsKey("m") != dora) {
            throw new MismatchException(weights.path() + ": " + layer.peft() + " has lora_a " + a + " and lora_b " + b
                    + (parts.containsKey("m") && !dora ? " and an m, and is said to be no DoRA" : ""));
        }
        return Math.toIntExact(a.get(1));
    }

    /** [rows, columns] of [columns, rows]. */
    private static float[] transposed(float[] values, int columns, int rows) {
        float[] result = new float[values.length];
        for (int i = 0; i < rows; i++) {
            for (int j = 0; j < columns; j++) {
                result[i * columns + j] = values[j * rows + i];
            }
        }
        return result;
    }
}
