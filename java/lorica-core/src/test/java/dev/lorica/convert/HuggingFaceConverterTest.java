package dev.lorica.convert;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.lorica.Model;
import dev.lorica.TestModels;
import dev.lorica.Tokenizer;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.files.GgufFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Folders that transformers wrote, and the GGUF files that they must give; scripts/make_convert_goldens.py made them. */
class HuggingFaceConverterTest {
    @TempDir
    Path folder;

    @ParameterizedTest
    @CsvSource({"llama3_rope_f16, F16, 1e-3", "one_kv_head_bf16, BF16, 8e-3"})
    void givesTheModelThatTheFolderHolds(String name, String type, float rounding) {
        Path output = folder.resolve("model.gguf");
        Path expected = TestModels.repository("native/tests/data/model_goldens/" + name + "/model.gguf");

        HuggingFaceConverter.convert(golden(name), output, type);

        Map<String, byte[]> tensors = TestModels.tensorBytes(output);
        Map<String, byte[]> theirs = TestModels.tensorBytes(expected);
        assertThat(tensors.keySet()).containsExactlyInAnyOrderElementsOf(theirs.keySet());
        try (GgufFile ours = GgufFile.open(output);
                GgufFile golden = GgufFile.open(expected)) {
            for (GgufFile.Tensor tensor : ours.tensors()) {
                if (tensor.shape().size() == 2) {
                    assertThat(Arrays.equals(tensors.get(tensor.name()), theirs.get(tensor.name())))
                            .as(tensor.name())
                            .isTrue();
                } else { // stored in the matrices' type there, in F32 here
                    FloatBuffer a = floats(tensors.get(tensor.name()));
                    FloatBuffer b = floats(theirs.get(tensor.name()));
                    assertThat(a.remaining()).isEqualTo(b.remaining());
                    for (int i = 0; i < a.limit(); i++) {
                        assertThat(a.get(i))
                                .as(tensor.name())
                                .isCloseTo(b.get(i), within(rounding * Math.abs(b.get(i))));
                    }
                }
            }
            Map<String, String> metadata = ours.metadata(-1);
            golden.metadata(-1).forEach((key, value) -> {
                if (!key.matches(
                        "general\\.(name|type)|tokenizer\\.ggml\\.scores|llama\\.attention\\.(key|value)_length|.*context_length")) {
                    assertThat(metadata.get(key)).as(key).isEqualTo(value);
                }
            });
            assertThat(metadata)
                    .containsEntry("tokenizer.ggml.add_bos_token", "true")
                    .containsEntry("tokenizer.ggml.add_space_prefix", "true");
        }
        try (Model model = Model.load(output)) {
            assertThat(model.tokenizer().encode(" word", true, false).length).isPositive();
        }
    }

    /** Names, orders of rows, values to the last bit and every key: the golden files were written with the gguf package's names. */
    @ParameterizedTest
    @MethodSource("dev.lorica.TestModels#families")
    void givesTheFileOfAFamilyAsLlamaCppHasIt(String name) {
        Path output = folder.resolve("model.gguf");
        Path expected = TestModels.repository("native/tests/data/model_goldens/" + name + "/model.gguf");

        HuggingFaceConverter.convert(golden(name), output, "F16");

        Map<String, float[]> ours = values(output);
        Map<String, float[]> theirs = values(expected);
        assertThat(ours.keySet()).containsExactlyInAnyOrderElementsOf(theirs.keySet());
        theirs.forEach(
                (tensor, values) -> assertThat(ours.get(tensor)).as(tensor).isEqualTo(values));
        try (GgufFile file = GgufFile.open(output);
                GgufFile golden = GgufFile.open(expected)) {
            Map<String, String> metadata = file.metadata(-1);
            Map<String, String> known = golden.metadata(-1);
            known.forEach((key, value) -> {
                if (!key.matches("general\\.(name|type)|tokenizer\\.ggml\\.scores")) {
                    assertThat(metadata.get(key)).as(key).isEqualTo(value);
                }
            });
            metadata.keySet().removeAll(known.keySet());
            assertThat(metadata.keySet())
                    .allMatch(
                            key -> key.matches("general\\..*|tokenizer\\..*|.*\\.(vocab_size|rope\\.dimension_count)"));
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"bert", "distilbert", "roberta"})
    void givesClassifiersWithTheirHeadsAndLabels(String name) {
        Path output = folder.resolve("model.gguf");

        HuggingFaceConverter.convert(golden(name), output, "F32");

        Path expected = golden(name).resolve("expected.gguf");
        Map<String, float[]> ours = values(output);
        Map<String, float[]> theirs = values(expected);
        assertThat(ours.keySet()).containsExactlyInAnyOrderElementsOf(theirs.keySet());
        theirs.forEach(
                (tensor, values) -> assertThat(ours.get(tensor)).as(tensor).isEqualTo(values));
        try (GgufFile file = GgufFile.open(output);
                GgufFile golden = GgufFile.open(expected)) {
            Map<String, String> metadata = file.metadata(-1);
            golden.metadata(-1).forEach((key, value) -> {
                if (!key.startsWith("general.")) {
                    assertThat(metadata.get(key)).as(key).isEqualTo(value);
                }
            });
        }
        try (Tokenizer tokenizer = Tokenizer.load(output)) {
            int[] ids = name.equals("roberta") ? new int[] {0, 261, 2} : new int[] {2, 5, 7, 3};
            assertThat(tokenizer.encode(name.equals("roberta") ? "the" : "THEs", true, false))
                    .isEqualTo(ids);
        }
    }

    @Test
    void theDefaultChatTemplateIsKept() {
        Path output = folder.resolve("model.gguf");
        HuggingFaceConverter.convert(golden("llama3_rope_f16"), output, "Q8_0");

        try (GgufFile model = GgufFile.open(output)) {
            assertThat(model.metadata(-1))
                    .containsEntry(
                            "tokenizer.chat_template", "\"{% for m in messages %}{{ m['content'] }}{% endfor %}\"");
            assertThat(model.metadata(0)).containsEntry("general.file_type", "7");
        }
        assertThat(folder.toFile().list()).containsExactly("model.gguf");
    }

    @Test
    void byteLevelVocabulariesAreThoseOfLlamaCppsConverter() {
        Path source = TestModels.repository("../shared/models/austen-7m-hf");
        assumeTrue(Files.exists(source), () -> source + " is not there");
        Path output = folder.resolve("model.gguf");
        HuggingFaceConverter.convert(source, output, "F16");

        try (GgufFile ours = GgufFile.open(output);
                GgufFile theirs = GgufFile.open(TestModels.austen());
                Tokenizer tokenizer = Tokenizer.load(output);
                Tokenizer same = Tokenizer.load(TestModels.austen())) {
            Map<String, String> metadata = ours.metadata(-1);
            theirs.metadata(-1).forEach((key, value) -> {
                if (key.startsWith("tokenizer.") || key.startsWith("llama.")) {
                    assertThat(metadata.get(key)).as(key).isEqualTo(value);
                }
            });
            for (String text :
                    List.of("It is a truth universally acknowledged", "  \n\n Élan 12345 it's — 🙂", "<|endoftext|>")) {
                assertThat(tokenizer.encode(text, true, true)).isEqualTo(same.encode(text, true, true));
            }
        }
    }

    @Test
    void namesWhatIsWrong() throws IOException {
        refused(FileAccessException.class, "is no folder", folder.resolve("missing"));
        Path copy = copy("llama3_rope_f16");
        replace(
                copy,
                "model.safetensors.index.json",
                "model-00002-of-00003.safetensors",
                "../model-00002-of-00003.safetensors");
        refused(FileFormatException.class, "names the file \"../model-00002-of-00003.safetensors\"", copy);
        copy = copy("llama3_rope_f16");
        replace(copy, "config.json", "LlamaForCausalLM", "MixtralForCausalLM");
        refused(UnsupportedException.class, "of the architecture \"MixtralForCausalLM\"", copy);
        copy = copy("llama3_rope_f16");
        replace(copy, "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3");
        refused(FileFormatException.class, "tensor \"model.layers.2.input_layernorm.weight\" is missing", copy);
        replace(copy, "config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 1");
        refused(UnsupportedException.class, "tensor \"model.layers.1.", copy);
        replace(copy, "config.json", "\"num_hidden_layers\": 1", "\"num_hidden_layers\": -1");
        refused(FileFormatException.class, "num_hidden_layers is -1", copy);
        copy = copy("llama3_rope_f16");
        replace(copy, "config.json", "\"intermediate_size\": 96", "\"intermediate_size\": 97");
        refused(FileFormatException.class, "has the shape [96, 64]; config.json asks for [97, 64]", copy);
        copy = copy("llama3_rope_f16");
        replace(copy, "config.json", "\"llama3\"", "\"yarn\"");
        refused(
                UnsupportedException.class,
                "the RoPE's high_freq_factor is 4.0; the RoPE's low_freq_factor is 1.0",
                copy);
        copy = copy("llama3_rope_f16");
        replace(copy, "config.json", "\"llama3\"", "\"dynamic\"");
        refused(UnsupportedException.class, "RoPE scaling of type \"dynamic\"", copy);
        copy = copy("llama3_rope_f16");
        Files.delete(copy.resolve("tokenizer.model"));
        refused(FileAccessException.class, "holds neither tokenizer.json nor tokenizer.model", copy);
        copy = copy("one_kv_head_bf16");
        replace(copy, "tokenizer.json", "\"BPE\"", "\"Unigram\"");
        refused(UnsupportedException.class, "has a model of type \"Unigram\"", copy);
    }

    /** Left out, each of them would give another model without a word. */
    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "qwen2    | \"use_sliding_window\": false | \"use_sliding_window\": true | use_sliding_window is true",
                "qwen3    | \"attention_bias\": false | \"attention_bias\": true | attention_bias is true",
                "smollm3  | \"no_rope_layer_interval\": 4 | \"no_rope_layer_interval\": 2 | no_rope_layer_interval is 2",
                "gpt2     | \"scale_attn_weights\": true | \"scale_attn_weights\": false | scale_attn_weights is false",
                "gpt2     | gelu_new | relu | activation_function is \"relu\"",
                "falcon_7b| \"alibi\": false | \"alibi\": true | alibi is true",
                "falcon_7b| \"parallel_attn\": true | \"parallel_attn\": false | parallel_attn is false",
                "gptneox  | \"hidden_act\": \"gelu\" | \"hidden_act\": \"relu\" | hidden_act is \"relu\"",
                "gemma2   | \"sliding_attention\", | \"chunked_attention\", | layer_types has chunked_attention",
                "gemma3   | gelu_pytorch_tanh | gelu | the activation is \"gelu\"",
                "phi3     | \"hidden_act\": \"silu\" | \"hidden_act\": \"relu\", \"mup_scale\": 2 | hidden_act is \"relu\"; mup_scale, which is not known, is 2",
                "mistral3 | \"mscale_all_dim\" | \"truncate\": false, \"mscale_all_dim\" | YaRN with truncate false",
            })
    void refusesSettingsThatItCannotKeep(String name, String from, String to, String part) throws IOException {
        Path copy = copy(name);
        replace(copy, "config.json", from, to);
        refused(UnsupportedException.class, part, copy);
    }

    @Test
    void damagedTokenizersAreErrorsOrTokenizers() throws IOException {
        byte[] sound = Files.readAllBytes(golden("llama3_rope_f16").resolve("tokenizer.model"));
        Random random = new Random(1);
        int errors = 0;
        for (int i = 0; i < 3000; i++) {
            byte[] damaged =
                    random.nextInt(4) == 0 ? Arrays.copyOf(sound, random.nextInt(sound.length)) : sound.clone();
            for (int flips = random.nextInt(4); flips >= 0 && damaged.length > 0; flips--) {
                damaged[random.nextInt(damaged.length)] = (byte) random.nextInt(256);
            }
            try {
                assertThat(SentencePieceModel.read(Path.of("tokenizer.model"), damaged)
                                .size())
                        .isBetween(1, damaged.length);
            } catch (LoricaException e) {
                assertThat(e.getMessage()).startsWith("tokenizer.model: ").doesNotContain("\n");
                errors++;
            }
        }
        assertThat(errors).isBetween(500, 3000);
    }

    // ----

    private static Path golden(String name) {
        return TestModels.repository("java/lorica-core/src/test/resources/convert")
                .resolve(name);
    }

    /** The tensors of a file of F16 and F32, by name. */
    private static Map<String, float[]> values(Path file) {
        Map<String, float[]> values = new HashMap<>();
        Map<String, byte[]> bytes = TestModels.tensorBytes(file);
        try (GgufFile gguf = GgufFile.open(file)) {
            for (GgufFile.Tensor tensor : gguf.tensors()) {
                ByteBuffer buffer = ByteBuffer.wrap(bytes.get(tensor.name())).order(ByteOrder.LITTLE_ENDIAN);
                boolean half = tensor.type().equalsIgnoreCase("F16");
                float[] floats = new float[buffer.remaining() / (half ? 2 : 4)];
                for (int i = 0; i < floats.length; i++) {
                    floats[i] = half ? half(buffer.getShort()) : buffer.getFloat();
                }
                values.put(tensor.name(), floats);
            }
        }
        return values;
    }

    /** IEEE 754 binary16, of finite numbers. */
    private static float half(short bits) {
        int exponent = bits >> 10 & 0x1f;
        int fraction = bits & 0x3ff;
        float magnitude =
                exponent == 0 ? fraction * 0x1p-24f : Float.intBitsToFloat(exponent + 112 << 23 | fraction << 13);
        return bits < 0 ? -magnitude : magnitude;
    }

    private static FloatBuffer floats(byte[] bytes) {
        return ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
    }

    private Path copy(String name) throws IOException {
        Path copy = Files.createTempDirectory(folder, name);
        try (Stream<Path> files = Files.list(golden(name))) {
            for (Path file : files.toList()) {
                Files.copy(file, copy.resolve(file.getFileName()));
            }
        }
        return copy;
    }

    private static void replace(Path copy, String file, String from, String to) throws IOException {
        String text = Files.readString(copy.resolve(file));
        assertThat(text).contains(from);
        Files.writeString(copy.resolve(file), text.replace(from, to));
    }

    private void refused(Class<? extends LoricaException> type, String part, Path source) {
        Path output = folder.resolve("refused.gguf");
        assertThatThrownBy(() -> HuggingFaceConverter.convert(source, output, "F16"))
                .isInstanceOf(type)
                .hasMessageContaining(part)
                .message()
                .doesNotContain("\n");
        assertThat(output).doesNotExist();
    }
}
