package dev.lorica.convert;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.files.SafetensorsWriter;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import dev.lorica.generate.LlamaCpp;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.function.BiFunction;
import java.util.function.Consumer;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Models of transformers, converted here and run by llama.cpp itself: it continues prompts as transformers does
 * (scripts/make_convert_goldens.py), and with an adapter on every linear layer as Lorica does. Of every family that this release
 * computes: it has neither {@link #UNKNOWN} nor the windows of Llama's layout (Mistral 7B v0.1), of Phi-3 and of OLMo 3. GPT-2 has
 * a copy of its embedding as output: without one this release does not load it ("could not load model from given file path"), and
 * with one it does. Newer releases take the embedding. It ends the process at a Gemma 2 that has not as many layers as one of the
 * published ones, so that ours gets layers that add nothing.
 */
class FamiliesInLlamaCppTest {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final int NEW_TOKENS = 8;
    private static final List<String> KNOWN = List.of(
            "llama_biases",
            "llama_yarn",
            "qwen2",
            "qwen2_yarn",
            "granite",
            "phi4_mini",
            "falcon_7b",
            "falcon_40b",
            "gpt2",
            "gptneox",
            "gptneox_serial",
            "gemma",
            "gemma2",
            "gemma3",
            "olmo2");
    private static final List<String> UNKNOWN = List.of("mistral3", "qwen3", "smollm3");

    @TempDir
    static Path folder;

    /** What llama.cpp says, of the model alone ("gemma") and with the adapter ("gemma adapted"). */
    private static final Map<String, LlamaCpp.Answer> THEIRS = new HashMap<>();

    private static final Map<String, List<String>> OURS = new HashMap<>();

    static List<String> known() {
        return KNOWN;
    }

    @BeforeAll
    static void answer() throws Exception {
        LlamaCpp.assumeItRuns();
        List<String> names = new ArrayList<>();
        List<LlamaCpp.Request> requests = new ArrayList<>();
        for (String name : KNOWN) {
            List<String> prompts = new ArrayList<>(expected(name).keySet());
            Path model = folder.resolve(name + ".gguf");
            Path source =
                    switch (name) {
                        case "gpt2" -> withOutput(source(name));
                        case "gemma2" -> withPublishedLayers(source(name));
                        default -> source(name);
                    };
            HuggingFaceConverter.convert(source, model, "F32");
            Path adapter = Files.createDirectory(folder.resolve(name));
            OURS.put(name, adapted(model, prompts, adapter));
            names.add(name);
            requests.add(new LlamaCpp.Request(model.toString(), null, prompts, NEW_TOKENS));
            names.add(name + " adapted");
            String file = adapter.resolve(Adapter.FILE_NAME).toString();
            requests.add(new LlamaCpp.Request(model.toString(), file, prompts, NEW_TOKENS));
        }
        for (String name : UNKNOWN) {
            Path model = folder.resolve(name + ".gguf");
            HuggingFaceConverter.convert(source(name), model, "F32");
            names.add(name);
            requests.add(new LlamaCpp.Request(model.toString(), null, List.of("A"), 1));
        }
        List<LlamaCpp.Answer> answers = LlamaCpp.answer(folder, requests);
        for (int i = 0; i < names.size(); i++) {
            THEIRS.put(names.get(i), answers.get(i));
        }
    }

    @ParameterizedTest
    @MethodSource("known")
    void continuesPromptsAsTransformersDoesAndWithAnAdapterAsWeDo(String name) throws IOException {
        List<String> expected = new ArrayList<>(expected(name).values());
        assertThat(THEIRS.get(name).texts()).isEqualTo(expected);
        assertThat(OURS.get(name)).isNotEqualTo(expected);
        assertThat(THEIRS.get(name + " adapted").texts()).isEqualTo(OURS.get(name));
    }

    /** A release that knows them belongs to the test above. */
    @ParameterizedTest
    @ValueSource(strings = {"mistral3", "qwen3", "smollm3"})
    void isOfAReleaseWithoutTheseFamilies(String name) {
        assertThat(UNKNOWN).contains(name);
        assertThat(THEIRS.get(name).texts()).isNull();
    }

    private static Path source(String name) {
        return TestModels.repository("java/lorica-core/src/test/resources/convert/" + name);
    }

    private static Map<String, String> expected(String name) throws IOException {
        return JSON.readValue(source(name).resolve("greedy.json").toFile(), new TypeReference<>() {});
    }

    /** Continuations with an adapter of random numbers, which is saved. */
    private static List<String> adapted(Path model, List<String> prompts, Path target) {
        List<String> texts = new ArrayList<>();
        try (Model loaded = Model.load(model, new ModelConfig("cpu", Precision.F32, 1));
                Adapter adapter = Adapter.create(
                        loaded, LoraConfig.builder().rank(4).alpha(32).build());
                Generator generator = new Generator(loaded, adapter)) {
            Random random = new Random(1);
            for (int i = 0; i < adapter.tensors().size(); i++) {
                float[] values = adapter.values(i);
                for (int j = 0; j < values.length; j++) {
                    values[j] = (float) (0.3 * random.nextGaussian());
                }
                adapter.setValues(i, values);
            }
            adapter.save(target);
            GenerationConfig greedy = GenerationConfig.builder()
                    .maxNewTokens(NEW_TOKENS)
                    .temperature(0)
                    .build();
            for (String prompt : prompts) {
                texts.add(generator.generate(prompt, greedy).result().text());
            }
        }
        return texts;
    }

    /** The folder with a head of its own, which is a copy of the embedding. */
    private static Path withOutput(Path source) throws IOException {
        return changed(
                source,
                config -> config.put("tie_word_embeddings", false),
                (name, values) -> name.equals("transformer.wte.weight")
                        ? Map.of(name, values, "lm_head.weight", values)
                        : Map.of(name, values));
    }

    /**
     * A Gemma 2 with the 26 layers of the published 2B: those added are copies whose post-norms multiply by 1 + weight = 0. The scale
     * of attention is that of the head's size, the only one that llama.cpp has for it; the weights of q make up for that.
     */
    private static Path withPublishedLayers(Path source) throws IOException {
        int layers = 26, headSize = 16;
        JsonNode original = JSON.readTree(source.resolve("config.json").toFile());
        int own = original.get("num_hidden_layers").intValue();
        double q = Math.sqrt(headSize / original.get("query_pre_attn_scalar").doubleValue());
        return changed(
                source,
                config -> {
                    config.put("num_hidden_layers", layers).put("query_pre_attn_scalar", headSize);
                    ArrayNode kinds = config.putArray("layer_types");
                    for (int i = 0; i < layers; i++) {
                        kinds.add(i % 2 == 0 ? "sliding_attention" : "full_attention");
                    }
                },
                (name, values) -> {
                    Map<String, float[]> tensors = new TreeMap<>();
                    tensors.put(name, name.contains("q_proj") ? times(values, q) : values);
                    String first = "model.layers.0.";
                    for (int i = own; i < layers && name.startsWith(first); i++) {
                        String copy = "model.layers." + i + "." + name.substring(first.length());
                        boolean closes = name.matches(".*post_(attention|feedforward)_layernorm.*");
                        float[] nothing = new float[values.length];
                        Arrays.fill(nothing, -1);
                        tensors.put(copy, closes ? nothing : values);
                    }
                    return tensors;
                });
    }

    private static float[] times(float[] values, double factor) {
        float[] product = new float[values.length];
        for (int i = 0; i < values.length; i++) {
            product[i] = (float) (factor * values[i]);
        }
        return product;
    }

    /** A copy of the folder; {@code tensors} gives what becomes of a tensor: itself, others of the same shape. */
    private static Path changed(
            Path source, Consumer<ObjectNode> change, BiFunction<String, float[], Map<String, float[]>> tensors)
            throws IOException {
        Path target = Files.createDirectories(folder.resolve("source-" + source.getFileName()));
        for (String file : List.of("generation_config.json", "tokenizer.model", "tokenizer_config.json")) {
            Files.copy(source.resolve(file), target.resolve(file));
        }
        ObjectNode config =
                (ObjectNode) JSON.readTree(source.resolve("config.json").toFile());
        change.accept(config);
        JSON.writeValue(target.resolve("config.json").toFile(), config);
        try (SafetensorsFile weights = SafetensorsFile.open(source.resolve("model.safetensors"))) {
            SafetensorsWriter writer = new SafetensorsWriter().metadata("format", "pt");
            weights.tensors().forEach((name, tensor) -> tensors.apply(name, weights.read(tensor))
                    .forEach((to, values) -> writer.add(to, tensor.shape(), () -> values)));
            writer.write(target.resolve("model.safetensors"));
        }
        return target;
    }
}
