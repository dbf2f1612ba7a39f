package dev.lorica.files;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalStateException;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.TestModels;
import dev.lorica.exceptions.FileAccessException;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Test;

class GgufFileTest {
    @Test
    void showsMetadataAsJson() {
        try (GgufFile file = GgufFile.open(TestModels.austen())) {
            Map<String, String> metadata = file.metadata(3);

            assertThat(metadata).containsEntry("general.architecture", "\"llama\"");
            assertThat(Integer.parseInt(metadata.get("llama.block_count"))).isPositive();
            assertThat(metadata.get("tokenizer.ggml.tokens")).startsWith("[\"");
            assertThat(file.arrayLengths().get("tokenizer.ggml.tokens"))
                    .isEqualTo(file.arrayLengths().get("tokenizer.ggml.token_type"))
                    .isGreaterThan(1000);
            assertThat(file.arrayLengths()).doesNotContainKey("general.architecture");
        }
    }

    @Test
    void showsTensors() {
        try (GgufFile file = GgufFile.open(TestModels.austen())) {
            long vocabulary = file.arrayLengths().get("tokenizer.ggml.tokens");
            long width = Long.parseLong(file.metadata(0).get("llama.embedding_length"));

            GgufFile.Tensor embedding = file.tensors().stream()
                    .filter(tensor -> tensor.name().equals("token_embd.weight"))
                    .findFirst()
                    .orElseThrow();
            assertThat(embedding.shape()).containsExactly(width, vocabulary);
            assertThat(embedding.elements()).isEqualTo(width * vocabulary);
            assertThat(embedding.bytes()).isPositive();
            assertThat(file.tensors()).extracting(GgufFile.Tensor::type).contains("Q4_0", "F32");
        }
    }

    @Test
    void saysWhichFileIsMissing() {
        assertThatThrownBy(() -> GgufFile.open(Path.of("no", "such.gguf")))
                .isInstanceOf(FileAccessException.class)
                .hasMessageContaining("such.gguf");
    }

    @Test
    void cannotBeUsedWhenClosed() {
        GgufFile file = GgufFile.open(TestModels.austen());
        file.close();

        assertThatIllegalStateException().isThrownBy(file::tensors).withMessage("the GGUF file is closed");
    }
}
