package dev.lorica;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalStateException;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.exceptions.DeviceException;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.files.GgufFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ModelTest {
    @Test
    void saysWhatItIs() {
        try (Model model = Model.load(TestModels.austen());
                GgufFile file = GgufFile.open(TestModels.austen())) {
            ModelInfo info = model.info();

            assertThat(info.architecture()).isEqualTo("llama");
            assertThat(info.fileType()).isEqualTo("Q4_0");
            assertThat(info.layers())
                    .isEqualTo(Integer.parseInt(file.metadata(0).get("llama.block_count")));
            assertThat(info.vocabSize()).isEqualTo(model.tokenizer().info().vocabSize());
            assertThat(info.parameters())
                    .isEqualTo(file.tensors().stream()
                            .mapToLong(GgufFile.Tensor::elements)
                            .sum());
            assertThat(info.weightBytes())
                    .isEqualTo(file.tensors().stream()
                            .mapToLong(GgufFile.Tensor::bytes)
                            .sum());
            assertThat(info.fingerprint()).matches("[0-9a-f]{16}");
        }
    }

    @Test
    void refusesWhatItCannotServe(@TempDir Path folder) throws Exception {
        assertThatThrownBy(() -> Model.load(folder.resolve("missing.gguf")))
                .isInstanceOf(FileAccessException.class)
                .hasMessageContaining("missing.gguf");
        assertThatThrownBy(() -> Model.load(TestModels.austen(), new ModelConfig("abacus", Precision.AUTO, 0)))
                .isInstanceOfAny(InvalidArgumentException.class, DeviceException.class)
                .hasMessageContaining("abacus");
        assertThatThrownBy(() -> new ModelConfig("cpu", Precision.AUTO, -1))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageStartingWith("threads is -1");
        byte[] bytes = Files.readAllBytes(TestModels.austen());
        Path cut = Files.write(folder.resolve("cut.gguf"), Arrays.copyOf(bytes, bytes.length / 2));
        assertThatThrownBy(() -> Model.load(cut))
                .isInstanceOf(LoricaException.class)
                .hasMessageContaining("cut.gguf")
                .message()
                .doesNotContain("\n");
    }

    @Test
    void theTokenizerIsClosedWithTheModel() {
        Model model = Model.load(TestModels.austen());
        Tokenizer tokenizer = model.tokenizer();
        assertThat(model.tokenizer()).isSameAs(tokenizer);

        model.close();

        assertThatIllegalStateException().isThrownBy(() -> tokenizer.encode("a", false, false));
        assertThatIllegalStateException()
                .isThrownBy(() -> Adapter.create(model, LoraConfig.defaults()))
                .withMessage("the model is closed");
    }

    @Test
    void theTokenizerOfAClosedModelIsNotRead() {
        Model model = Model.load(TestModels.austen());
        model.close();

        assertThatIllegalStateException().isThrownBy(model::tokenizer).withMessage("the model is closed");
    }
}
