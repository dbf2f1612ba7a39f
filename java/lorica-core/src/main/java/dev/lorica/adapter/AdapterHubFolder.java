package dev.lorica.adapter;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.NullNode;
import dev.lorica.Model;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.files.SafetensorsWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Bottlenecks as AdapterHub's {@code adapters} reads and writes them: {@value PeftFolder#CONFIG}, with a {@code BnConfig} in it, and
 * {@value #WEIGHTS}. Its models with bottlenecks are, of those that there are here, Llama, Mistral, GPT-2, BERT, DistilBERT and RoBERTa;
 * of others the keys are those that it would have.
 */
final class AdapterHubFolder {
    static final String WEIGHTS = "adapter.safetensors";
    private static final String PICKLED = "pytorch_adapter.bin";
    private static final String NAME = "lorica";
    private static final Pattern LAYER = Pattern.compile("^(.*?\\.)(\\d+)\\.");
    private static final Pattern TENSOR =
            Pattern.compile("blk\\.(\\d+)\\.(attn|ffn)_adapter_(down|up)\\.(weight|bias)");

    private AdapterHubFolder() {}

    static boolean is(JsonNode json) {
        return !json.has("peft_type") && json.path("config").isObject();
    }

    static SafetensorsFile open(Path folder) {
        if (!Files.exists(folder.resolve(WEIGHTS)) && Files.exists(folder.resolve(PICKLED))) {
            throw new UnsupportedException(
                    folder.resolve(PICKLED) + " is a Python pickle, which is not read; save the adapter"
                            + " with save_adapter(folder, name, use_safetensors=True)");
        }
        return SafetensorsFile.open(folder.resolve(WEIGHTS));
    }

    // ---- writing

    static Map<String, Object> write(Adapter adapter, SafetensorsWriter weights, String baseModel) {
        if (adapter.labels() != null) {
            throw new UnsupportedException(
                    "bottlenecks with a classifier are not written as AdapterHub's files; take GGUF");
        }
        List<Adapter.Tensor> tensors = adapter.tensors();
        for (int i = 0; i < tensors.size(); i++) {
            int index = i;
            Adapter.Tensor tensor = tensors.get(i);
            weights.add(key(adapter.model(), tensor, NAME), shape(tensor), () -> adapter.values(index));
        }
        BottleneckConfig bottleneck = adapter.bottleneck();
        int embedding = adapter.model().info().embedding();
        Map<String, Object> full = new LinkedHashMap<>();
        full.put("config", config(bottleneck, embedding));
        full.put("hidden_size", embedding);
        full.put("model_class", null);
        full.put("model_name", baseModel);
        full.put("model_type", adapter.model().info().architecture());
        full.put("name", NAME);
        full.put("version", "adapters.1.2.0");
        return full;
    }

    /** That of AdapterHub's {@code DoubleSeqBnConfig} or {@code SeqBnConfig}. */
    private static Map<String, Object> config(BottleneckConfig bottleneck, int embedding) {
        boolean pfeiffer = bottleneck.placement() == BottleneckConfig.Placement.PFEIFFER;
        int size = bottleneck.size();
        Map<String, Object> config = new LinkedHashMap<>();
        config.put("mh_adapter", !pfeiffer);
        config.put("output_adapter", true);
        // Which int(hidden_size // reduction_factor) makes the size of.
        config.put(
                "reduction_factor",
                embedding / (embedding / size) == size ? (Number) (embedding / size) : embedding / (size + 0.5));
        config.put("non_linearity", bottleneck.nonLinearity().toString());
        config.put("original_ln_before", pfeiffer);
        config.put("original_ln_after", true);
        config.put("ln_before", false);
        config.put("ln_after", false);
        config.put("init_weights", "mam_adapter");
        config.put("is_parallel", false);
        config.put("scaling", 1.0);
        config.put("use_gating", false);
        config.put("residual_before_ln", true);
        config.put("adapter_residual_before_ln", false);
        config.put("inv_adapter", null);
        config.put("inv_adapter_reduction_factor", null);
        config.put("cross_adapter", false);
        config.put("leave_out", List.of());
        config.put("dropout", 0.0);
        config.put("phm_layer", false);
        config.put("stochastic_depth", 0.0);
        return config;
    }

    private static List<Long> shape(Adapter.Tensor tensor) {
        return tensor.isVector() ? List.of(tensor.rows()) : List.of(tensor.rows(), tensor.columns());
    }

    private static String key(Model model, Adapter.Tensor tensor, String name) {
        Matcher parts = TENSOR.matcher(tensor.name());
        Matcher layer = LAYER.matcher(LinearLayer.of(model).get(0).peft());
        if (!parts.matches() || !layer.find()) {
            throw new IllegalStateException(tensor.name());
        }
        boolean attention = parts.group(2).equals("attn");
        String root = layer.group(1);
        String inside = root.matches("(ro)?bert.*") ? attention ? "attention.output." : "output." : "";
        return root + parts.group(1) + "." + inside + (attention ? "attention" : "output") + "_adapters.adapters."
                + name + ".adapter_" + parts.group(3) + (parts.group(3).equals("down") ? ".0." : ".") + parts.group(4);
    }

    // ---- reading

    static Adapter read(Model model, Path file, JsonNode json, SafetensorsFile weights) {
        JsonNode config = json.get("config");
        BottleneckConfig.Placement placement = placement(file, config);
        String nonLinearity = config.path("non_linearity").asText("");
        BottleneckConfig.NonLinearity function = Arrays.stream(BottleneckConfig.NonLinearity.values())
                .filter(one -> one.toString().equals(nonLinearity)
                        || nonLinearity.equals("silu") && one.toString().equals("swish"))
                .findFirst()
                .orElseThrow(() -> new UnsupportedException(file + ": non_linearity \"" + nonLinearity
                        + "\" is not supported; relu, swish, gelu, gelu_new and tanh are"));
        String name = json.path("name").asText("");
        int size = weights.tensors().values().stream()
                .filter(tensor -> tensor.name().endsWith(".adapter_down.0.bias"))
                .findFirst()
                .map(tensor -> Math.toIntExact(tensor.shape().get(0)))
                .orElseThrow(() -> new FileFormatException(weights.path() + " holds no bottleneck"));
        Adapter adapter = Adapter.create(model, new BottleneckConfig(placement, 16, size, function, 0));
        try {
            List<Adapter.Tensor> tensors = adapter.tensors();
            Set<String> keys = new LinkedHashSet<>();
            tensors.forEach(tensor -> keys.add(key(model, tensor, name)));
            PeftFolder.checkKeys(weights, keys);
            for (int i = 0; i < tensors.size(); i++) {
                SafetensorsFile.Tensor stored = weights.tensors().get(key(model, tensors.get(i), name));
                if (!stored.shape().equals(shape(tensors.get(i)))) {
                    throw new MismatchException(weights.path() + ": \"" + stored.name() + "\" has the shape "
                            + stored.shape() + "; this model needs " + shape(tensors.get(i)));
                }
                float[] values = weights.read(stored);
                PeftFolder.checkFinite(weights, stored, values);
                adapter.setValues(i, values);
            }
            return adapter;
        } catch (RuntimeException e) {
            adapter.close();
            throw e;
        }
    }

    private static BottleneckConfig.Placement placement(Path file, JsonNode config) {
        boolean attention = config.path("mh_adapter").asBoolean();
        boolean before = config.path("original_ln_before").asBoolean();
        Map<String, String> wanted = new LinkedHashMap<>();
        wanted.put("output_adapter", "true");
        wanted.put("original_ln_before", attention ? "false" : "true");
        wanted.put("original_ln_after", "true");
        wanted.put("residual_before_ln", "true");
        for (String off : List.of("ln_before", "ln_after", "is_parallel", "use_gating", "phm_layer", "cross_adapter")) {
            wanted.put(off, "false");
        }
        wanted.put("scaling", "1.0");
        wanted.put("inv_adapter", "null");
        wanted.put("leave_out", "[]");
        Map<String, String> defaults = Map.of(
                "original_ln_before",
                "false",
                "original_ln_after",
                "true",
                "residual_before_ln",
                "true",
                "scaling",
                "1.0",
                "inv_adapter",
                "null",
                "leave_out",
                "[]");
        wanted.forEach((key, value) -> {
            JsonNode found = config.path(key);
            String given = found.isMissingNode() ? defaults.getOrDefault(key, "false") : found.toString();
            boolean same = given.equals(value)
                    || found.isNumber() && value.equals("1.0") && found.asDouble() == 1
                    || found instanceof NullNode && value.equals("[]");
            if (!same) {
                throw new UnsupportedException(file + ": " + key + " is " + given
                        + ", which is not supported; AdapterHub's double_seq_bn (houlsby) and seq_bn (pfeiffer) are");
            }
        });
        return before ? BottleneckConfig.Placement.PFEIFFER : BottleneckConfig.Placement.HOULSBY;
    }
}
