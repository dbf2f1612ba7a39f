package dev.lorica.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.lorica.Model;
import dev.lorica.TestModels;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.files.SafetensorsWriter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Adapters as mlx-lm saves them: what PEFT's are, transposed, under other names, with a scale for an alpha. */
class MlxFolderTest {
    private static final String CONFIG = "{\"fine_tune_type\": \"%s\", \"num_layers\": 8, \"model\": \"owner/base\", "
            + "\"lora_parameters\": {\"rank\": 2, \"scale\": 5.0, \"dropout\": 0.1}}";

    private static Model model;

    @TempDir
    Path folder;

    @BeforeAll
    static void load() {
        model = Model.load(TestModels.austen());
    }

    @AfterAll
    static void close() {
        model.close();
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void isReadAsThePeftAdapterThatItIsTheTransposeOf(boolean dora) throws IOException {
        LoraConfig config = LoraConfig.builder()
                .rank(2)
                .alpha(10)
                .useDora(dora)
                .targetModules("q_proj", "k_proj", "down_proj")
                .build();
        Path mlx = Files.createDirectory(folder.resolve("mlx"));
        try (Adapter adapter = Adapter.create(model, config)) {
            for (int i = 0; i < adapter.tensors().size(); i++) {
                float[] values = adapter.values(i);
                for (int j = 0; j < values.length; j++) {
                    values[j] += (float) Math.sin(i + 0.1 * j);
                }
                adapter.setValues(i, values);
            }
            Path peft = folder.resolve("peft");
            adapter.save(peft, Set.of(Adapter.Format.PEFT), "base");
            transpose(peft, mlx);
            Files.writeString(mlx.resolve("adapter_config.json"), CONFIG.formatted(dora ? "dora" : "lora"));

            try (Adapter read = Adapter.load(model, mlx)) {
                assertThat(read.info().scale()).isCloseTo(5, within(1e-6));
                assertThat(read.info().dropout()).isCloseTo(0.1, within(1e-6));
                assertThat(read.tensors().stream().map(Adapter.Tensor::name).toList())
                        .isEqualTo(adapter.tensors().stream()
                                .map(Adapter.Tensor::name)
                                .toList());
                for (int i = 0; i < adapter.tensors().size(); i++) {
                    assertThat(read.values(i))
                            .as(adapter.tensors().get(i).name())
                            .isEqualTo(adapter.values(i));
                }
            }
        }
    }

    private static void transpose(Path peft, Path mlx) {
        SafetensorsWriter writer = new SafetensorsWriter();
        try (SafetensorsFile file = SafetensorsFile.open(peft.resolve("adapter_model.safetensors"))) {
            for (SafetensorsFile.Tensor tensor : file.tensors().values()) {
                float[] values = file.read(tensor);
                String name = tensor.name()
                        .replaceFirst("^base_model\\.model\\.", "")
                        .replace("lora_A.weight", "lora_a")
                        .replace("lora_B.weight", "lora_b")
                        .replace("lora_magnitude_vector", "m");
                if (tensor.shape().size() == 1) {
                    writer.add(name, tensor.shape(), () -> values);
                    continue;
                }
                int rows = tensor.shape().get(0).intValue();
                int columns = tensor.shape().get(1).intValue();
                float[] turned = new float[values.length];
                for (int i = 0; i < rows; i++) {
                    for (int j = 0; j < columns; j++) {
                        turned[j * rows + i] = values[i * columns + j];
                    }
                }
                writer.add(name, List.of((long) columns, (long) rows), () -> turned);
            }
        }
        writer.write(mlx.resolve("adapters.safetensors"));
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            value = {
                "model.layers.0.self_attn.q_proj; {}; no \"lora_parameters\" with a \"scale\"",
                "model.layers.0.self_attn.q_proj; {\"fine_tune_type\": \"full\"}; fine_tune_type \"full\" is not"
                        + " supported",
                "model.layers.99.self_attn.q_proj; {}; of no linear layer of this model's 8 blocks",
                "model.embed_tokens; {}; of no linear layer",
                "model.layers.0.self_attn.q_proj; {; is damaged"
            })
    void whatDoesNotFitIsNamed(String layer, String config, String message) throws IOException {
        new SafetensorsWriter()
                .add(layer + ".lora_a", List.of(256L, 2L), () -> new float[512])
                .add(layer + ".lora_b", List.of(2L, 256L), () -> new float[512])
                .write(folder.resolve("adapters.safetensors"));
        Files.writeString(folder.resolve("adapter_config.json"), config);
        assertThatThrownBy(() -> Adapter.load(model, folder))
                .isInstanceOf(LoricaException.class)
                .hasMessageContaining(message);
    }

    @Test
    void halfOfAPairIsNamed() throws IOException {
        new SafetensorsWriter()
                .add("model.layers.0.self_attn.q_proj.lora_a", List.of(256L, 2L), () -> new float[512])
                .write(folder.resolve("adapters.safetensors"));
        Files.writeString(folder.resolve("adapter_config.json"), CONFIG.formatted("lora"));
        assertThatThrownBy(() -> Adapter.load(model, folder))
                .hasMessageContaining("model.layers.0.self_attn.q_proj has no lora_b");
    }
}
