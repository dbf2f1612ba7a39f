package dev.lorica;

import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.lorica.files.GgufFile;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Models of the source tree, and beside it, that tests read. */
public final class TestModels {
    private TestModels() {}

    /** 7.3 M parameters, Llama architecture, in the repository. */
    public static Path austen() {
        return repository().resolve("models/austen-7m-q4_0.gguf");
    }

    /** A vocabulary-only file; a test that wants one is skipped where it is not there. */
    public static Path vocabulary(String name) {
        Path file = repository().resolve("../shared/data/vocab").resolve(name);
        assumeTrue(Files.exists(file), () -> file + " is not there");
        return file;
    }

    /** Small models of transformers' classes, of every family: scripts/make_family_goldens.py. For {@code @MethodSource}. */
    public static List<String> families() {
        return List.of(
                "llama_biases",
                "llama_yarn",
                "mistral_window",
                "mistral3",
                "qwen2",
                "qwen2_yarn",
                "qwen3",
                "granite",
                "smollm3",
                "phi3",
                "phi4_mini",
                "gpt2",
                "falcon_7b",
                "falcon_40b",
                "gptneox",
                "gptneox_serial",
                "gemma",
                "gemma2",
                "gemma3",
                "olmo2",
                "olmo3");
    }

    /** A file of the source tree. */
    public static Path repository(String path) {
        return repository().resolve(path);
    }

    private static Path repository() {
        return Path.of(System.getProperty("lorica.repository", "../.."));
    }

    /** The bytes of every tensor of a GGUF file, in its order. */
    public static Map<String, byte[]> tensorBytes(Path file) {
        Map<String, byte[]> bytes = new LinkedHashMap<>();
        try (GgufFile contents = GgufFile.open(file);
                FileChannel channel = FileChannel.open(file)) {
            for (GgufFile.Tensor tensor : contents.tensors()) {
                ByteBuffer buffer = ByteBuffer.allocate((int) tensor.bytes());
                while (buffer.hasRemaining() && channel.read(buffer, tensor.offset() + buffer.position()) > 0) {
                    // goes on where it stopped
                }
                bytes.put(tensor.name(), buffer.array());
            }
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        return bytes;
    }
}
