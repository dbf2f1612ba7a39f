package dev.lorica.convert;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

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
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Models of transformers, converted here and run by llama.cpp itself: it continues prompts as transformers does
 * (scripts/make_convert_goldens.py), and with an adapter on every linear layer as Lorica does. GPT-2 has a copy of its embedding as output:
 * without one this release does not load it ("could not load model from given file path"), and with one it does. Newer releases take
 * the embedding.
 */
class FamiliesInLlamaCppTest {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String NEW_TOKENS = "8";

    @TempDir
    Path folder;

    @ParameterizedTest
    @ValueSource(
            strings = {
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
                "olmo2"
            })
    void continuesPromptsAsTransformersDoes(String name) throws Exception {
        assumeTrue(System.getProperty("os.name").equals("Linux"), "its binding brings a library for Linux");
        assumeTrue(
                List.of("amd64", "x86_64").contains(System.getProperty("os.arch")),
                "its binding's library is for x86_64");
        Path source = TestModels.repository("java/lorica-core/src/test/resources/convert/" + name);
        Map<String, String> expected =
                JSON.readValue(source.resolve("greedy.json").toFile(), new TypeReference<>() {});
        Path model = folder.resolve("model.gguf");
        HuggingFaceConverter.convert(name.equals("gpt2") ? withOutput(source) : source, model, "F32");
        List<String> prompts = new ArrayList<>(expected.keySet());
        assertThat(llamaCpp(model, "none", prompts)).isEqualTo(new ArrayList<>(expected.values()));

        List<String> ours = new ArrayList<>();
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
            adapter.save(folder);
            GenerationConfig greedy = GenerationConfig.builder()
                    .maxNewTokens(Integer.parseInt(NEW_TOKENS))
                    .temperature(0)
                    .build();
            for (String prompt : prompts) {
                ours.add(generator.generate(prompt, greedy).result().text());
            }
        }
        assertThat(ours).isNotEqualTo(new ArrayList<>(expected.values()));
        assertThat(llamaCpp(model, folder.resolve(Adapter.FILE_NAME).toString(), prompts))
                .isEqualTo(ours);
    }

    /** The folder with a head of its own, which is a copy of the embedding. */
    private Path withOutput(Path source) throws IOException {
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

    private List<String> llamaCpp(Path model, String adapter, List<String> prompts) throws Exception {
        Path input = folder.resolve("prompts.json");
        Path texts = folder.resolve("texts.json");
        Path log = folder.resolve("llama.cpp.log");
        JSON.writeValue(input.toFile(), prompts);
        Process process = new ProcessBuilder(
                        Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                        "-cp",
                        System.getProperty("java.class.path"),
                        "dev.lorica.generate.LlamaCpp",
                        model.toString(),
                        adapter,
                        input.toString(),
                        texts.toString(),
                        NEW_TOKENS)
                .redirectErrorStream(true)
                .redirectOutput(log.toFile())
                .start();
        boolean ended = process.waitFor(5, TimeUnit.MINUTES);
        if (!ended) {
            process.destroyForcibly();
        }
        assertThat(ended && process.exitValue() == 0)
                .as(() -> "llama.cpp ended: " + tail(log))
                .isTrue();
        return JSON.readValue(texts.toFile(), new TypeReference<>() {});
    }

    private static String tail(Path log) {
        try {
            String text = Files.readString(log);
            return text.substring(Math.max(0, text.length() - 2000));
        } catch (IOException e) {
            return e.toString();
        }
    }
}
