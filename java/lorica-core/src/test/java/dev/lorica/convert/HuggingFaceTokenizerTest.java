package dev.lorica.convert;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import dev.lorica.TestModels;
import dev.lorica.Tokenizer;
import dev.lorica.internal.NativeGgufWriter;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.zip.CRC32;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Tokenizers of real models, taken over from their folders, on a thousand difficult texts: the ids of Hugging Face's own library.
 * scripts/fetch_tokenizers.sh fetches the folders, scripts/make_tokenizer_goldens.py wrote the ids. The words of gpt35turbo are those
 * of OLMo 2 and Granite 4.
 */
class HuggingFaceTokenizerTest {
    private static final int MOST_TOKENS = 1 << 20;

    @TempDir
    Path scratch;

    @ParameterizedTest
    @ValueSource(
            strings = {
                "gemma3",
                "gpt2",
                "gpt35turbo",
                "gpt4o",
                "gptoss",
                "llama2",
                "llama3",
                "mistral_nemo",
                "qwen3",
                "minilm",
                "austen-7m"
            })
    void givesTheIdsOfHuggingFacesTokenizer(String name) throws IOException {
        Path folder = folder(name);
        assumeTrue(
                Files.exists(folder.resolve("tokenizer.json")),
                () -> folder + " has no tokenizer.json; scripts/fetch_tokenizers.sh fetches it");
        Path file = scratch.resolve("vocabulary.gguf");
        try (NativeGgufWriter writer = new NativeGgufWriter()) {
            writer.set("general.architecture", "llama");
            HuggingFaceTokenizer tokenizer =
                    new HuggingFaceTokenizer(folder, JsonNodeFactory.instance.objectNode(), MOST_TOKENS);
            tokenizer.writeTo(writer, tokenizer.size());
            writer.write(file.toString());
        }
        assertIds(name, file);
    }

    @Test
    void aVocabularyOfFalconGivesTheIdsOfHuggingFacesTokenizer() throws IOException {
        assertIds("falcon", TestModels.vocabulary("falcon.gguf"));
    }

    private static void assertIds(String name, Path file) throws IOException {
        List<String> texts = texts();
        List<String> sums = Files.readAllLines(data().resolve(name + ".txt"));
        assertThat(texts).hasSize(1000).hasSameSizeAs(sums);
        List<String> differing = new ArrayList<>();
        try (Tokenizer tokenizer = Tokenizer.load(file)) {
            for (int i = 0; i < texts.size(); i++) {
                int[] ids = tokenizer.encode(texts.get(i), false, true);
                if (!sum(ids).equals(sums.get(i))) {
                    differing.add(texts.get(i));
                }
            }
        }
        assertThat(differing).isEmpty();
    }

    private static String sum(int[] ids) {
        ByteBuffer bytes = ByteBuffer.allocate(4 * ids.length).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asIntBuffer().put(ids);
        CRC32 crc = new CRC32();
        crc.update(bytes);
        return String.format("%08x %d", crc.getValue(), ids.length);
    }

    private static Path data() {
        return TestModels.repository("java/lorica-core/src/test/resources/tokenizers");
    }

    private static Path folder(String name) {
        if (name.equals("minilm") || name.equals("austen-7m")) {
            return TestModels.repository("../shared/models/" + name + (name.equals("minilm") ? "-l6-hf" : "-hf"));
        }
        String told = System.getenv("LORICA_TOKENIZERS");
        Path tokenizers =
                told != null ? Path.of(told) : Path.of(System.getProperty("user.home"), ".cache/lorica/tokenizers");
        return tokenizers.resolve(name);
    }

    private static List<String> texts() throws IOException {
        List<String> texts = new ArrayList<>();
        for (String line : Files.readAllLines(data().resolve("texts.txt"))) {
            texts.add(unescaped(line));
        }
        return texts;
    }

    private static String unescaped(String line) {
        byte[] bytes = line.getBytes(StandardCharsets.UTF_8);
        ByteArrayOutputStream text = new ByteArrayOutputStream();
        for (int i = 0; i < bytes.length; i++) {
            if (bytes[i] != '\\') {
                text.write(bytes[i]);
                continue;
            }
            switch (bytes[++i]) {
                case 'n' -> text.write('\n');
                case 't' -> text.write('\t');
                case 'r' -> text.write('\r');
                case 'x' -> {
                    text.write(Integer.parseInt(new String(bytes, i + 1, 2, StandardCharsets.US_ASCII), 16));
                    i += 2;
                }
                default -> text.write(bytes[i]);
            }
        }
        return text.toString(StandardCharsets.UTF_8);
    }
}
