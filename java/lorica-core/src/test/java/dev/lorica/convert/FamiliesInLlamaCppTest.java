package dev.lorica.convert;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
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
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Models of transformers, converted here and run by llama.cpp itself: it continues prompts as transformers does
 * (scripts/make_convert_goldens.py), and with an adapter on every linear layer as Lorica does. Of every family that this release
 * computes: it has neither {@link #UNKNOWN} nor the windows of Llama's layout (Mistral 7B v0.1), of Phi-3 and of OLMo 3, and ends
 * the process at a Gemma 2 that has not as many layers as one of the published ones. GPT-2 has a copy of its embedding as output:
 * without one this release does not load it ("could not load model from given file path"), and with one it does. Newer releases
 * take the embedding.
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
            HuggingFaceConverter.convert(name.equals("gpt2") ? withOutput(source(name)) : source(name), model, "F32");
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
        Path target = Files.createDirectories(folder.resolve("source"));
        for (String file : List.of("generation_config.json", "tokenizer.model", "tokenizer_config.json")) {
            Files.copy(source.resolve(file), target.resolve(file));
        }
        ObjectNode config =
                (ObjectNode) JSON.readTree(source.resolve("config.json").toFile());
        JSON.writeValue(target.resolve("config.json").toFile(), config.put("tie_word_embeddings", false));
        try (SafetensorsFile weights = SafetensorsFile.open(source.resolve("model.safetensors"))) {
            SafetensorsWriter writer = new SafetensorsWriter().metadata("format", "pt");
            weights.tensors().forEach((name, tensor) -> {
                writer.add(name, tensor.shape(), () -> weights.read(tensor));
                if (name.equals("transformer.wte.weight")) {
                    writer.add("lm_head.weight", tensor.shape(), () -> weights.read(tensor));
                }
            });
            writer.write(target.resolve("model.safetensors"));
        }
        return target;
    }
}
