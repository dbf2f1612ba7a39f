package dev.lorica.convert;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.FullConfig;
import dev.lorica.adapter.HuggingFaceModel;
import dev.lorica.data.Labels;
import dev.lorica.eval.TextClassifier;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.files.GgufFile;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Folders of models that were trained whole: read again by the converter, they are the same models. */
class HuggingFaceModelTest {
    private static final ModelConfig F32 = new ModelConfig("cpu", Precision.F32, 1);

    @TempDir
    Path folder;

    private static Path source(String name) {
        return TestModels.repository("java/lorica-core/src/test/resources/convert/" + name);
    }

    private static void move(Adapter adapter) {
        for (int i = 0; i < adapter.tensors().size(); i++) {
            float[] values = adapter.values(i);
            for (int j = 0; j < values.length; j++) {
                values[j] += (j % 7 - 3) / 256f;
            }
            adapter.setValues(i, values);
        }
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "llama_biases",
                "mistral_window",
                "qwen2",
                "qwen3",
                "granite",
                "smollm3",
                "gemma",
                "gemma2",
                "gpt2"
            })
    void hasTheSettingsAndWeightsOfTheModel(String name) throws IOException {
        Path file = folder.resolve("model.gguf");
        HuggingFaceConverter.convert(source(name), file, "F32");
        Path written = folder.resolve("written");
        Path merged = folder.resolve("merged.gguf");
        try (Model model = Model.load(file, F32);
                Adapter adapter = Adapter.create(model, new FullConfig(List.of(1), Set.of()))) {
            move(adapter);
            HuggingFaceModel.write(adapter, written);
            ModelFiles.merge(adapter, merged, null);
        }
        Path again = converted(written, source(name));
        assertThat(metadata(again)).isEqualTo(metadata(file));
        try (Model model = Model.load(again, F32);
                Model trained = Model.load(merged, F32);
                Adapter actual = Adapter.create(model, FullConfig.defaults());
                Adapter expected = Adapter.create(trained, FullConfig.defaults())) {
            assertThat(actual.tensors()).isEqualTo(expected.tensors());
            for (int i = 0; i < expected.tensors().size(); i++) {
                assertThat(actual.values(i)).isEqualTo(expected.values(i));
            }
        }
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "llama_biases",
                "mistral_window",
                "qwen2",
                "qwen3",
                "smollm3",
                "gemma",
                "gemma2",
                "gpt2",
                "bert",
                "roberta",
                "distilbert"
            })
    void hasTheClassifierThatWasTrainedWithIt(String name) throws IOException {
        Path file = folder.resolve("model.gguf");
        HuggingFaceConverter.convert(source(name), file, "F32");
        Path written = folder.resolve("written");
        Path merged = folder.resolve("merged.gguf");
        Labels labels = new Labels(Labels.Problem.SINGLE_LABEL_CLASSIFICATION, List.of("cold", "warm", "hot", "other"));
        float[] expected;
        try (Model model = Model.load(file, F32);
                Adapter adapter = Adapter.create(model, FullConfig.defaults(), labels)) {
            move(adapter);
            HuggingFaceModel.write(adapter, written);
            ModelFiles.merge(adapter, merged, null);
            expected = outputs(model, adapter);
        }
        JsonNode config =
                new ObjectMapper().readTree(written.resolve("config.json").toFile());
        assertThat(config.at("/architectures/0").asText()).endsWith("ForSequenceClassification");
        assertThat(config.at("/id2label/2").asText()).isEqualTo("hot");
        assertThat(config.at("/label2id/hot").asInt()).isEqualTo(2);
        Path again = converted(written, source(name));
        // What llama.cpp takes a merged classifier for, transformers has no word for.
        Map<String, String> meant = metadata(merged);
        meant.keySet().removeIf(key -> key.endsWith(".pooling_type"));
        assertThat(metadata(again)).isEqualTo(meant);
        try (Model model = Model.load(again, F32);
                Model trained = Model.load(merged, F32)) {
            assertThat(Labels.of(model)).isEqualTo(labels);
            assertThat(outputs(model, null)).containsExactly(expected);
            assertThat(outputs(trained, null)).containsExactly(expected);
        }
    }

    /** The folder that was written as a file again, with those of the source that it lacks, such as the tokenizer. */
    private Path converted(Path written, Path source) throws IOException {
        try (Stream<Path> files = Files.list(source)) {
            for (Path one : files.filter(Files::isRegularFile).toList()) {
                Path to = written.resolve(one.getFileName());
                if (!Files.exists(to)) {
                    Files.copy(one, to);
                }
            }
        }
        Path again = folder.resolve("again.gguf");
        HuggingFaceConverter.convert(written, again, "F32");
        return again;
    }

    private static float[] outputs(Model model, Adapter adapter) {
        try (TextClassifier classifier = new TextClassifier(model, adapter)) {
            return classifier.classify(List.of("the")).get(0).outputs();
        }
    }

    private static Map<String, String> metadata(Path file) {
        try (GgufFile gguf = GgufFile.open(file)) {
            Map<String, String> metadata = new HashMap<>(gguf.metadata(64));
            metadata.keySet().removeIf(key -> key.startsWith("general.") && !key.equals("general.architecture"));
            return metadata;
        }
    }

    @Test
    void whatHasNoFolderIsSaidInOneLine() {
        Labels labels = new Labels(Labels.Problem.SINGLE_LABEL_CLASSIFICATION, List.of("cold", "warm"));
        Path file = folder.resolve("model.gguf");
        HuggingFaceConverter.convert(source("phi3"), file, "F32");
        try (Model model = Model.load(file, F32)) {
            assertThatThrownBy(() -> HuggingFaceModel.check(model, null))
                    .isInstanceOf(UnsupportedException.class)
                    .hasMessageContaining("no Hugging Face folder can be written of architecture 'phi3'");
        }
        HuggingFaceConverter.convert(source("granite"), file, "F32");
        try (Model model = Model.load(file, F32)) {
            assertThatThrownBy(() -> HuggingFaceModel.check(model, labels))
                    .isInstanceOf(UnsupportedException.class)
                    .hasMessageContaining("transformers has no class for a Granite that classifies");
        }
        HuggingFaceConverter.convert(source("llama_yarn"), file, "F32");
        try (Model model = Model.load(file, F32)) {
            assertThatThrownBy(() -> HuggingFaceModel.check(model, null))
                    .isInstanceOf(UnsupportedException.class)
                    .hasMessageContaining("scaled RoPE");
        }
    }
}
