package dev.lorica.convert;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.hub.Hub;
import dev.lorica.internal.NativeGgufWriter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/**
 * Makes a GGUF model from the folder of a Llama as Hugging Face publishes it: {@code config.json}, {@code model.safetensors} in one
 * piece or several, {@code tokenizer.json} or {@code tokenizer.model}.
 */
public final class HuggingFaceConverter implements AutoCloseable {
    /** Architectures that compute what Llama computes. */
    private static final List<String> ARCHITECTURES = List.of("LlamaForCausalLM", "MistralForCausalLM");

    private static final Map<String, Integer> FILE_TYPES = Map.of("F32", 0, "F16", 1, "BF16", 32);
    private static final Map<String, String> LAYER_NAMES = new LinkedHashMap<>();

    static {
        LAYER_NAMES.put("input_layernorm", "attn_norm");
        LAYER_NAMES.put("self_attn.q_proj", "attn_q");
        LAYER_NAMES.put("self_attn.k_proj", "attn_k");
        LAYER_NAMES.put("self_attn.v_proj", "attn_v");
        LAYER_NAMES.put("self_attn.o_proj", "attn_output");
        LAYER_NAMES.put("post_attention_layernorm", "ffn_norm");
        LAYER_NAMES.put("mlp.gate_proj", "ffn_gate");
        LAYER_NAMES.put("mlp.up_proj", "ffn_up");
        LAYER_NAMES.put("mlp.down_proj", "ffn_down");
    }

    private final Path folder;
    private final JsonNode config;
    private final Map<String, SafetensorsFile> files = new LinkedHashMap<>();
    private final Map<String, SafetensorsFile> fileOf = new HashMap<>();

    private HuggingFaceConverter(Path folder) {
        this.folder = folder;
        this.config = JsonFiles.read(folder.resolve("config.json"));
    }

    /**
     * Writes the GGUF file.
     *
     * @param type of the matrices: {@code F16}, {@code BF16}, {@code F32}, or any that {@link ModelFiles#quantize} knows
     */
    public static void convert(Path input, Path output, String type) {
        Path folder = Hub.folder(input);
        if (!Files.isDirectory(folder)) {
            throw new FileAccessException(folder + " is no folder; that of a Hugging Face model is meant");
        }
        try (HuggingFaceConverter converter = new HuggingFaceConverter(folder)) {
            converter.checkArchitecture();
            converter.openFiles();
            String plain = type.toUpperCase(Locale.ROOT);
            if (FILE_TYPES.containsKey(plain)) {
                converter.write(output, plain);
                return;
            }
            Path scratch = output.resolveSibling(
                    output.getFileName() + ".tmp-" + ProcessHandle.current().pid());
            try {
                converter.write(scratch, "F32");
                ModelFiles.quantize(scratch, output, type, 0);
            } finally {
                Files.deleteIfExists(scratch);
            }
        } catch (IOException e) {
            throw new FileAccessException(folder + " cannot be read: " + e.getMessage(), e);
        }
    }

    // ---- what is there

    private void checkArchitecture() {
        String architecture = config.path("architectures").path(0).asText("");
        if (!ARCHITECTURES.contains(architecture)) {
            throw new UnsupportedException(folder + " holds a model of the architecture \"" + architecture
                    + "\", which is not supported; " + String.join(" and ", ARCHITECTURES) + " are");
        }
        for (String bias : List.of("attention_bias", "mlp_bias")) {
            if (config.path(bias).asBoolean(false)) {
                throw new UnsupportedException(folder + ": " + bias + " is true; biases are not supported");
            }
        }
        if (config.has("quantization_config")) {
            throw new UnsupportedException(folder + ": the model is quantized ("
                    + config.path("quantization_config").path("quant_method").asText() + "); convert the original one");
        }
        String activation = config.path("hidden_act").asText("silu");
        if (!activation.equals("silu")) {
            throw new UnsupportedException(
                    folder + ": the activation \"" + activation + "\" is not supported; silu is");
        }
    }

    private void openFiles() {
        Path index = folder.resolve("model.safetensors.index.json");
        if (Files.exists(index)) {
            Set<String> names = new TreeSet<>();
            JsonFiles.read(index).path("weight_map").forEach(name -> names.add(name.asText()));
            for (String name : names) {
                // The index comes from a stranger: nothing outside the folder.
                if (!name.matches("[\\w][\\w.-]*\\.safetensors")) {
                    throw new FileFormatException(
                            index + " names the file \"" + name.replaceAll("\\p{Cntrl}", " ") + "\"");
                }
                files.put(name, SafetensorsFile.open(folder.resolve(name)));
            }
        } else {
            files.put("model.safetensors", SafetensorsFile.open(folder.resolve("model.safetensors")));
        }
        files.values().forEach(file -> file.tensors().keySet().forEach(name -> {
            if (fileOf.put(name, file) != null) {
                throw new FileFormatException(file.path() + ": tensor \"" + name + "\" is in another file too");
            }
        }));
    }

    @Override
    public void close() {
        files.values().forEach(SafetensorsFile::close);
    }

    // ---- the new file

    private void write(Path output, String type) {
        int layers = positive("num_hidden_layers");
        int embedding = positive("hidden_size");
        int heads = positive("num_attention_heads");
        int kvHeads = config.hasNonNull("num_key_value_heads") ? positive("num_key_value_heads") : heads;
        int headDim = config.hasNonNull("head_dim") ? positive("head_dim") : embedding / heads;
        int feedForward = positive("intermediate_size");
        int vocabulary = positive("vocab_size");
        if (headDim < 2) {
            throw new FileFormatException(
                    folder.resolve("config.json") + ": " + heads + " heads share " + embedding + " features");
        }
        // What is sized by these numbers comes after they are known to be those of tensors that are there.
        tensor("model.embed_tokens.weight", List.of(vocabulary, embedding));
        tensor("model.layers.0.self_attn.q_proj.weight", List.of(product(heads, headDim), embedding));
        JsonNode rope =
                config.hasNonNull("rope_parameters") ? config.get("rope_parameters") : config.path("rope_scaling");
        float base = (float)
                rope.path("rope_theta").asDouble(config.path("rope_theta").asDouble(10000));

        try (NativeGgufWriter writer = new NativeGgufWriter()) {
            writer.set("general.architecture", "llama");
            writer.set("general.name", name());
            writer.set("general.file_type", FILE_TYPES.get(type));
            writer.set("llama.block_count", layers);
            writer.set("llama.context_length", positive("max_position_embeddings"));
            writer.set("llama.embedding_length", embedding);
            writer.set("llama.feed_forward_length", feedForward);
            writer.set("llama.attention.head_count", heads);
            writer.set("llama.attention.head_count_kv", kvHeads);
            if (headDim * heads != embedding) {
                writer.set("llama.attention.key_length", headDim);
                writer.set("llama.attention.value_length", headDim);
            }
            writer.set("llama.attention.layer_norm_rms_epsilon", (float)
                    config.path("rms_norm_eps").asDouble(1e-6));
            writer.set("llama.rope.dimension_count", headDim);
            writer.set("llama.rope.freq_base", base);
            writer.set("llama.vocab_size", vocabulary);
            float[] ropeFactors = ropeScaling(writer, rope, base, headDim);
            new HuggingFaceTokenizer(folder, config, vocabulary).writeTo(writer);

            Set<String> unused = new LinkedHashSet<>(fileOf.keySet());
            unused.removeIf(name -> name.endsWith(".rotary_emb.inv_freq"));
            if (ropeFactors != null) {
                writer.add("rope_freqs.weight", ropeFactors);
            }
            add(
                    writer,
                    unused,
                    "model.embed_tokens.weight",
                    "token_embd.weight",
                    type,
                    0,
                    List.of(vocabulary, embedding));
            for (int i = 0; i < layers; i++) {
                int q = product(heads, headDim);
                int kv = product(kvHeads, headDim);
                Map<String, List<Integer>> shapes = Map.of(
                        "attn_norm", List.of(embedding),
                        "attn_q", List.of(q, embedding),
                        "attn_k", List.of(kv, embedding),
                        "attn_v", List.of(kv, embedding),
                        "attn_output", List.of(embedding, q),
                        "ffn_norm", List.of(embedding),
                        "ffn_gate", List.of(feedForward, embedding),
                        "ffn_up", List.of(feedForward, embedding),
                        "ffn_down", List.of(embedding, feedForward));
                for (Map.Entry<String, String> names : LAYER_NAMES.entrySet()) {
                    String gguf = names.getValue();
                    int ropeHeads = gguf.equals("attn_q") ? heads : gguf.equals("attn_k") ? kvHeads : 0;
                    add(
                            writer,
                            unused,
                            "model.layers." + i + "." + names.getKey() + ".weight",
                            "blk." + i + "." + gguf + ".weight",
                            type,
                            ropeHeads,
                            shapes.get(gguf));
                }
            }
            add(writer, unused, "model.norm.weight", "output_norm.weight", type, 0, List.of(embedding));
            if (config.path("tie_word_embeddings").asBoolean(false)) {
                unused.remove("lm_head.weight");
            } else {
                add(writer, unused, "lm_head.weight", "output.weight", type, 0, List.of(vocabulary, embedding));
            }
            if (!unused.isEmpty()) {
                throw new UnsupportedException(folder + ": tensor \""
                        + unused.iterator().next() + "\" is no part of a Llama as it is supported here");
            }
            writer.write(output.toString());
        }
    }

    private void add(
            NativeGgufWriter writer,
            Set<String> unused,
            String name,
            String gguf,
            String type,
            int ropeHeads,
            List<Integer> shape) {
        SafetensorsFile.Tensor tensor = tensor(name, shape);
        unused.remove(name);
        boolean matrix = shape.size() > 1;
        writer.add(
                gguf,
                matrix ? type : "F32",
                matrix ? shape.get(0) : 0,
                shape.get(matrix ? 1 : 0),
                fileOf.get(name).path().toString(),
                tensor.offset(),
                tensor.type(),
                ropeHeads);
    }

    private int product(int heads, int headDim) {
        if ((long) heads * headDim > Integer.MAX_VALUE) {
            throw new FileFormatException(
                    folder.resolve("config.json") + ": " + heads + " heads of " + headDim + " features are too many");
        }
        return heads * headDim;
    }

    private SafetensorsFile.Tensor tensor(String name, List<Integer> shape) {
        SafetensorsFile file = fileOf.get(name);
        if (file == null) {
            throw new FileFormatException(folder + ": tensor \"" + name + "\" is missing");
        }
        SafetensorsFile.Tensor tensor = file.tensors().get(name);
        if (!tensor.shape().equals(shape.stream().map(Integer::longValue).toList())) {
            throw new FileFormatException(file.path() + ": tensor \"" + name + "\" has the shape " + tensor.shape()
                    + "; config.json asks for " + shape);
        }
        return tensor;
    }

    /** What divides the frequencies of Llama 3's RoPE, one per pair; {@code null} where they are plain or scaled alike. */
    private float[] ropeScaling(NativeGgufWriter writer, JsonNode rope, float base, int headDim) {
        String type = rope.path("rope_type").asText(rope.path("type").asText("default"));
        switch (type) {
            case "default":
                return null;
            case "linear":
                writer.set("llama.rope.scaling.type", "linear");
                writer.set(
                        "llama.rope.scaling.factor", (float) rope.path("factor").asDouble(1));
                return null;
            case "llama3":
                return llama3Factors(rope, base, headDim);
            default:
                throw new UnsupportedException(
                        folder + ": RoPE scaling \"" + type + "\" is not supported; linear and llama3 are");
        }
    }

    /** transformers' modeling_rope_utils, _compute_llama3_parameters. */
    private float[] llama3Factors(JsonNode rope, float base, int headDim) {
        double factor = rope.path("factor").asDouble(8);
        double low = rope.path("low_freq_factor").asDouble(1);
        double high = rope.path("high_freq_factor").asDouble(4);
        double context = rope.path("original_max_position_embeddings").asDouble(8192);
        if (!(factor > 0 && low > 0 && high > low && context > 0)) {
            throw new FileFormatException(
                    folder + ": the llama3 RoPE scaling " + JsonFiles.shown(rope) + " makes no sense");
        }
        float[] factors = new float[headDim / 2];
        for (int i = 0; i < factors.length; i++) {
            double wavelength = 2 * Math.PI * Math.pow(base, 2.0 * i / headDim);
            double smooth = (context / wavelength - low) / (high - low);
            factors[i] = wavelength < context / high
                    ? 1
                    : wavelength > context / low ? (float) factor : (float) (1 / ((1 - smooth) / factor + smooth));
        }
        return factors;
    }

    private int positive(String key) {
        JsonNode value = config.path(key);
        if (!value.isIntegralNumber() || !value.canConvertToInt() || value.asInt() < 1) {
            throw new FileFormatException(folder.resolve("config.json") + ": " + key + " is "
                    + (value.isMissingNode() ? "missing" : JsonFiles.shown(value))
                    + "; a whole number from 1 is needed");
        }
        return value.asInt();
    }

    private String name() {
        String told = config.path("_name_or_path").asText("");
        String name = told.substring(told.lastIndexOf('/') + 1);
        return name.isEmpty()
                ? folder.toAbsolutePath().normalize().getFileName().toString()
                : name;
    }
}
