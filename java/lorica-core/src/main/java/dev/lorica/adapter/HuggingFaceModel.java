package dev.lorica.adapter;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.json.JsonMapper;
import dev.lorica.Model;
import dev.lorica.data.Labels;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.files.AtomicFile;
import dev.lorica.files.GgufFile;
import dev.lorica.files.SafetensorsWriter;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.Inner;
import dev.lorica.internal.TensorTable;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;

/**
 * A model that was trained whole, as a folder that transformers loads: {@value #CONFIG} and {@value #WEIGHTS}, in F32. The tokenizer's
 * files are those of the base, and are not written.
 *
 * <p>{@code HuggingFaceConverter} reads such folders; what it makes of a setting is what this makes undone.
 */
public final class HuggingFaceModel {
    /** The file with the model's settings. */
    public static final String CONFIG = "config.json";
    /** The file with the model's weights. */
    public static final String WEIGHTS = "model.safetensors";

    private static final String CLASSIFIES = "ForSequenceClassification";
    /** Rows of its positions that belong to padding, which GGUF files leave out. */
    private static final int FIRST_POSITION_OF_ROBERTA = 2;

    private static final JsonMapper JSON =
            JsonMapper.builder().enable(SerializationFeature.INDENT_OUTPUT).build();
    /** By GGUF's architecture: transformers' class without its ending, and model_type. */
    private static final Map<String, List<String>> FAMILIES = Map.of(
            "llama", List.of("LlamaForCausalLM", "llama"),
            "qwen2", List.of("Qwen2ForCausalLM", "qwen2"),
            "qwen3", List.of("Qwen3ForCausalLM", "qwen3"),
            "granite", List.of("GraniteForCausalLM", "granite"),
            "smollm3", List.of("SmolLM3ForCausalLM", "smollm3"),
            "gemma", List.of("GemmaForCausalLM", "gemma"),
            "gemma2", List.of("Gemma2ForCausalLM", "gemma2"),
            "gpt2", List.of("GPT2LMHeadModel", "gpt2"));

    private final Model model;
    /** {@code null}: it writes words. */
    private final Labels labels;

    private final String architecture;
    private final Map<String, JsonNode> metadata = new LinkedHashMap<>();
    private final Map<String, TensorTable.Tensor> tensors = new LinkedHashMap<>();
    private final Set<String> inFile;
    private final Map<String, Object> config = new LinkedHashMap<>();

    private HuggingFaceModel(Model model, Labels labels) {
        this.model = model;
        this.labels = labels;
        architecture = model.info().architecture();
        // What says classes stands where the head for words would.
        TensorTable.Kind without = labels == null ? TensorTable.Kind.CLASSIFIER : TensorTable.Kind.HEAD;
        TensorTable.of(Inner.MODEL.of(model)).stream()
                .filter(tensor -> tensor.kind() != without)
                .forEach(tensor -> tensors.put(tensor.name(), tensor));
        try (GgufFile file = GgufFile.open(model.file())) {
            for (Map.Entry<String, String> entry : file.metadata(0).entrySet()) {
                metadata.put(entry.getKey(), JSON.readTree(entry.getValue()));
            }
            inFile = file.tensors().stream().map(GgufFile.Tensor::name).collect(Collectors.toSet());
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }

    /**
     * Refuses a model that {@link #write} could not write.
     *
     * @param model  the base that is to be trained whole
     * @param labels of the classifier that is trained with it; {@code null}: there is none
     * @throws UnsupportedException for a model whose folder cannot be written, before anything is computed
     */
    public static void check(Model model, Labels labels) {
        new HuggingFaceModel(Arguments.given(model, "model"), labels).describe();
    }

    /**
     * Writes the model with the weights of {@code adapter} in it into {@code folder}, which is made when it does not exist.
     *
     * @param adapter of method {@link Method#FULL}
     * @param folder  where the model's files go
     * @throws UnsupportedException for a model whose folder cannot be written
     */
    public static void write(Adapter adapter, Path folder) {
        Arguments.given(folder, "folder");
        if (Arguments.given(adapter, "adapter").info().method() != Method.FULL) {
            throw new InvalidArgumentException("only what was trained whole is a model; merge the adapter into one");
        }
        Labels labels = adapter.labels();
        HuggingFaceModel written = new HuggingFaceModel(adapter.model(), labels);
        written.describe();
        SafetensorsWriter weights = new SafetensorsWriter().metadata("format", "pt");
        // What was not trained is as the file has it, in plain numbers.
        try (Adapter base = Adapter.create(adapter.model(), FullConfig.defaults(), labels)) {
            Map<String, Integer> trained = byName(adapter);
            Map<String, Integer> all = byName(base);
            float added = PeftWhole.addedToNorms(adapter.model());
            for (TensorTable.Tensor tensor : written.tensors.values()) {
                Adapter from = trained.containsKey(tensor.name()) ? adapter : base;
                Integer index = (from == adapter ? trained : all).get(tensor.name());
                if (index != null) {
                    weights.add(
                            tensor.hfName(),
                            written.shape(tensor),
                            () -> written.values(tensor, from.values(index), added));
                }
            }
            Files.createDirectories(folder);
            weights.write(folder.resolve(WEIGHTS));
            AtomicFile.write(folder.resolve(CONFIG), JSON.writeValueAsBytes(written.config));
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        } catch (IOException e) {
            throw new FileAccessException(folder + " cannot be written: " + AtomicFile.reason(e), e);
        }
    }

    private List<Long> shape(TensorTable.Tensor tensor) {
        List<Long> shape = new ArrayList<>(tensor.hfShape());
        if (shape.get(0) == 0) {
            shape.set(0, (long) labels.outputs());
        }
        if (isOfRobertaPositions(tensor)) {
            shape.set(0, shape.get(0) + FIRST_POSITION_OF_ROBERTA);
        }
        return shape;
    }

    private float[] values(TensorTable.Tensor tensor, float[] values, float addedToNorms) {
        if (!isOfRobertaPositions(tensor)) {
            return tensor.toHuggingFace(values, addedToNorms);
        }
        float[] behind = new float[values.length + Math.toIntExact(FIRST_POSITION_OF_ROBERTA * tensor.columns())];
        System.arraycopy(values, 0, behind, behind.length - values.length, values.length);
        return behind;
    }

    private boolean isOfRobertaPositions(TensorTable.Tensor tensor) {
        return tensor.name().equals("position_embd.weight") && tensor.hfName().startsWith("roberta.");
    }

    private static Map<String, Integer> byName(Adapter adapter) {
        Map<String, Integer> indices = new LinkedHashMap<>();
        List<Adapter.Tensor> tensors = adapter.tensors();
        for (int i = 0; i < tensors.size(); i++) {
            indices.put(tensors.get(i).name(), i);
        }
        return indices;
    }

    // ---- the settings

    private void describe() {
        if (architecture.equals("bert")) {
            encoder();
            classifier();
            return;
        }
        List<String> family = FAMILIES.get(architecture);
        if (family == null) {
            throw new UnsupportedException("no Hugging Face folder can be written of architecture '" + architecture
                    + "'; of bert, " + String.join(", ", new TreeSet<>(FAMILIES.keySet()))
                    + " it can. The GGUF model is written of every one");
        }
        boolean mistral = architecture.equals("llama") && has("attention.sliding_window");
        String name = mistral ? "MistralForCausalLM" : family.get(0);
        if (labels != null && architecture.equals("granite")) {
            throw new UnsupportedException("transformers has no class for a Granite that classifies; the GGUF model is"
                    + " written of it, which lorica classify reads");
        }
        config.put(
                "architectures",
                List.of(labels == null ? name : name.replaceFirst("ForCausalLM|LMHeadModel", CLASSIFIES)));
        config.put("model_type", mistral ? "mistral" : family.get(1));
        config.put("dtype", "float32");
        config.put("torch_dtype", "float32");
        config.put("vocab_size", tensors.get("token_embd.weight").rows());
        config.put("tie_word_embeddings", !inFile.contains("output.weight"));
        token("bos");
        token("eos");
        if (architecture.equals("gpt2")) {
            gpt2();
        } else {
            decoder();
        }
        switch (architecture) {
            case "llama" -> {
                config.put("attention_bias", inFile.contains("blk.0.attn_q.bias"));
                config.put("mlp_bias", inFile.contains("blk.0.ffn_up.bias"));
                if (mistral) {
                    if (inFile.contains("blk.0.attn_q.bias") || inFile.contains("blk.0.ffn_up.bias")) {
                        throw new UnsupportedException(
                                "transformers has no class for a Llama with a window and biases");
                    }
                    config.put("sliding_window", whole("attention.sliding_window"));
                }
            }
            case "qwen2", "qwen3" -> config.put("use_sliding_window", false);
            case "granite" -> {
                config.put("attention_multiplier", number("attention.scale"));
                config.put("embedding_multiplier", number("embedding_scale"));
                config.put("residual_multiplier", number("residual_scale"));
                config.put("logits_scaling", number("logit_scale"));
            }
            case "smollm3" -> {
                config.put("no_rope_layer_interval", 4);
                config.put("use_sliding_window", false);
            }
            case "gemma2" -> {
                config.put(
                        "attn_logit_softcapping",
                        has("attn_logit_softcapping") ? number("attn_logit_softcapping") : 50.0);
                config.put(
                        "final_logit_softcapping",
                        has("final_logit_softcapping") ? number("final_logit_softcapping") : 30.0);
                config.put(
                        "sliding_window", has("attention.sliding_window") ? whole("attention.sliding_window") : 4096);
                double scale = has("attention.scale")
                        ? number("attention.scale")
                        : 1 / Math.sqrt(model.info().headDim());
                config.put("query_pre_attn_scalar", rounded(1 / (scale * scale)));
            }
            default -> {}
        }
        classifier();
        if (architecture.startsWith("gemma")) {
            config.put("hidden_activation", "gelu_pytorch_tanh");
            config.put("hidden_act", "gelu_pytorch_tanh");
        } else if (!architecture.equals("gpt2")) {
            config.put("hidden_act", "silu");
        }
    }

    /** What its outputs are called; {@code pad_token_id} is by what transformers finds the last token of texts in a batch. */
    private void classifier() {
        if (labels == null) {
            return;
        }
        Map<String, String> names = new LinkedHashMap<>();
        Map<String, Integer> numbers = new LinkedHashMap<>();
        for (int i = 0; i < labels.outputs(); i++) {
            String name = i < labels.names().size() ? labels.names().get(i) : "LABEL_" + i;
            names.put(Integer.toString(i), name);
            numbers.put(name, i);
        }
        config.put("id2label", names);
        config.put("label2id", numbers);
        config.put("problem_type", labels.problem().toString());
        JsonNode pad = metadata.get("tokenizer.ggml.padding_token_id");
        config.putIfAbsent("pad_token_id", pad == null ? null : pad.asInt());
    }

    private void encoder() {
        if (labels == null) {
            throw new UnsupportedException("an encoder is trained as a classifier, and this one has none");
        }
        String root = tensors.get("token_embd.weight").hfName();
        String type = root.substring(0, root.indexOf('.'));
        boolean roberta = type.equals("roberta");
        boolean distilled = type.equals("distilbert");
        config.put("architectures", List.of((roberta ? "Roberta" : distilled ? "DistilBert" : "Bert") + CLASSIFIES));
        config.put("model_type", type);
        config.put("dtype", "float32");
        config.put("torch_dtype", "float32");
        config.put("vocab_size", tensors.get("token_embd.weight").rows());
        config.put(
                "max_position_embeddings",
                tensors.get("position_embd.weight").rows() + (roberta ? FIRST_POSITION_OF_ROBERTA : 0));
        config.put(distilled ? "n_layers" : "num_hidden_layers", whole("block_count"));
        config.put(distilled ? "dim" : "hidden_size", whole("embedding_length"));
        config.put(distilled ? "hidden_dim" : "intermediate_size", whole("feed_forward_length"));
        config.put(distilled ? "n_heads" : "num_attention_heads", model.info().heads());
        config.put(distilled ? "activation" : "hidden_act", "gelu");
        if (!distilled) {
            config.put("layer_norm_eps", number("attention.layer_norm_epsilon"));
            config.put("type_vocab_size", tensors.get("token_types.weight").rows());
        }
        // RoBERTa's positions begin behind it.
        config.put("pad_token_id", roberta ? FIRST_POSITION_OF_ROBERTA - 1 : padding());
        if (roberta) {
            token("bos");
            token("eos");
        }
    }

    private int padding() {
        JsonNode pad = metadata.get("tokenizer.ggml.padding_token_id");
        return pad == null ? 0 : pad.asInt();
    }

    private void gpt2() {
        config.put("n_layer", whole("block_count"));
        config.put("n_embd", whole("embedding_length"));
        config.put("n_head", whole("attention.head_count"));
        config.put("n_positions", whole("context_length"));
        config.put("n_inner", tensors.get("blk.0.ffn_up.weight").rows());
        config.put("layer_norm_epsilon", number("attention.layer_norm_epsilon"));
        config.put("activation_function", "gelu_new");
    }

    private void decoder() {
        for (String key : metadata.keySet()) {
            boolean scaled = key.startsWith(architecture + ".rope.scaling.")
                    && !(key.endsWith(".type") && metadata.get(key).asText().equals("none"));
            if (scaled) {
                throw new UnsupportedException("no Hugging Face folder can be written of a model with scaled RoPE ("
                        + key + "); the GGUF model is written of it");
            }
        }
        if (inFile.contains("rope_freqs.weight")) {
            throw new UnsupportedException(
                    "no Hugging Face folder can be written of a model with factors of its RoPE's"
                            + " frequencies (rope_freqs.weight), whose settings its file does not have; the GGUF model is written of it");
        }
        config.put("num_hidden_layers", whole("block_count"));
        config.put("hidden_size", whole("embedding_length"));
        config.put("intermediate_size", whole("feed_forward_length"));
        config.put("num_attention_heads", model.info().heads());
        config.put("num_key_value_heads", model.info().kvHeads());
        config.put("head_dim", model.info().headDim());
        config.put("max_position_embeddings", whole("context_length"));
        config.put("rms_norm_eps", number("attention.layer_norm_rms_epsilon"));
        double base = has("rope.freq_base") ? number("rope.freq_base") : 10000.0;
        // transformers 5, and what was before it
        config.put("rope_parameters", Map.of("rope_type", "default", "rope_theta", base));
        config.put("rope_theta", base);
    }

    private void token(String name) {
        JsonNode id = metadata.get("tokenizer.ggml." + name + "_token_id");
        config.put(name + "_token_id", id == null ? null : id.asInt());
    }

    private boolean has(String key) {
        return metadata.containsKey(architecture + "." + key);
    }

    private JsonNode node(String key) {
        JsonNode value = metadata.get(architecture + "." + key);
        if (value == null) {
            throw new UnsupportedException(model.file() + " does not say \"" + architecture + "." + key
                    + "\", which a Hugging Face folder needs");
        }
        return value;
    }

    private int whole(String key) {
        return node(key).asInt();
    }

    /** Of a number that the file has as a float: the one with few digits that was meant. */
    private double number(String key) {
        return Double.parseDouble(Float.toString((float) node(key).asDouble()));
    }

    private static double rounded(double value) {
        double near = Math.rint(value);
        return Math.abs(value - near) < 1e-3 ? near : value;
    }
}
