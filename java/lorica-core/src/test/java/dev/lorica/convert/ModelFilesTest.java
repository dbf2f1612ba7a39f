package dev.lorica.convert;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.NonFiniteException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.files.GgufFile;
import dev.lorica.generate.Logits;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class ModelFilesTest {
    private static final ModelConfig F32 = new ModelConfig("cpu", Precision.F32, 2);
    private static final int[] TOKENS = {5, 80, 3, 200, 17, 17, 259, 0, 42};

    @TempDir
    Path folder;

    @ParameterizedTest
    @ValueSource(strings = {"plain", "patterns", "rslora_patterns"})
    void aMergedModelGivesTheLogitsOfTheAdapter(String name) {
        Path output = folder.resolve("merged.gguf");
        float[] live;
        float[] base;
        try (Model model = Model.load(golden(), F32);
                Adapter adapter = Adapter.load(
                        model,
                        TestModels.repository("java/lorica-core/src/test/resources/peft")
                                .resolve(name))) {
            live = logits(model, adapter);
            base = logits(model, null);
            ModelFiles.merge(adapter, output, "F32");
        }
        try (Model merged = Model.load(output, F32)) {
            float largest = largest(live);
            float[] logits = logits(merged, null);
            for (int i = 0; i < live.length; i++) {
                assertThat(logits[i]).isCloseTo(live[i], within(1e-5f * largest));
            }
            assertThat(distance(base, live)).isGreaterThan(0.05f * largest);
        }
    }

    @Test
    void theScaleOfTheAdapterIsMerged() {
        Path output = folder.resolve("merged.gguf");
        try (Model model = Model.load(golden(), F32);
                Adapter adapter =
                        Adapter.load(model, TestModels.repository("java/lorica-core/src/test/resources/peft/plain"))) {
            adapter.setScale(0);
            ModelFiles.merge(adapter, output, "F32");
        }

        assertSameTensors(output, golden());
    }

    @Test
    void unlessATypeIsAskedForOnlyWhatTheAdapterChangesBecomesF16() {
        Path output = folder.resolve("merged.gguf");
        try (Model model = Model.load(TestModels.austen());
                Adapter adapter = Adapter.create(
                        model,
                        LoraConfig.builder()
                                .targetModules("q_proj", "blk.2.ffn_down")
                                .build())) {
            ModelFiles.merge(adapter, output, null);
        }

        Map<String, byte[]> before = bytes(TestModels.austen());
        Map<String, byte[]> after = bytes(output);
        assertThat(after.keySet()).containsExactlyElementsOf(before.keySet());
        try (GgufFile merged = GgufFile.open(output);
                GgufFile model = GgufFile.open(TestModels.austen())) {
            assertThat(merged.metadata(-1)).isEqualTo(model.metadata(-1));
            for (GgufFile.Tensor tensor : merged.tensors()) {
                if (tensor.name().endsWith("attn_q.weight") || tensor.name().equals("blk.2.ffn_down.weight")) {
                    assertThat(tensor.type()).isEqualTo("F16");
                } else {
                    assertThat(Arrays.equals(after.get(tensor.name()), before.get(tensor.name())))
                            .as(tensor.name())
                            .isTrue();
                }
            }
        }
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "f32", "F16", "bf16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_K",
                "Q4_1", "Q4_0", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K", "IQ4_NL", "IQ4_XS", "MXFP4", "TQ2_0"
            })
    void modelsOfEveryTypeLoad(String type) {
        Path output = folder.resolve("model.gguf");

        ModelFiles.quantize(TestModels.austen(), output, type, 2);

        try (Model model = Model.load(output, F32)) {
            String most = type.toUpperCase(Locale.ROOT).replaceAll("_[SML]$", "");
            assertThat(model.info().fileType()).isEqualTo(most);
            assertThat(logits(model, null)).doesNotContain(Float.NaN);
        }
    }

    @Test
    void mixesGiveMoreBitsToTheTensorsThatLlamaCppGivesThem() {
        Path output = folder.resolve("model.gguf");
        ModelFiles.quantize(TestModels.austen(), output, "Q4_K_M", 0);

        try (GgufFile model = GgufFile.open(output)) {
            Map<String, String> types = new LinkedHashMap<>();
            model.tensors().forEach(tensor -> types.put(tensor.name(), tensor.type()));
            Set<String> large = types.entrySet().stream()
                    .filter(e -> e.getValue().equals("Q6_K"))
                    .map(Map.Entry::getKey)
                    .collect(Collectors.toSet());
            // The first and the last of 8 layers, every third between, and the embedding, which is the output head too.
            assertThat(large)
                    .containsExactlyInAnyOrder(
                            "token_embd.weight",
                            "blk.0.attn_v.weight",
                            "blk.3.attn_v.weight",
                            "blk.6.attn_v.weight",
                            "blk.7.attn_v.weight",
                            "blk.0.ffn_down.weight",
                            "blk.3.ffn_down.weight",
                            "blk.6.ffn_down.weight",
                            "blk.7.ffn_down.weight");
            assertThat(types.values().stream().filter("Q4_K"::equals)).hasSize(8 * 7 - 8);
            assertThat(types.values().stream().filter("F32"::equals)).hasSize(17);
            assertThat(model.metadata(0))
                    .containsEntry("general.file_type", "15")
                    .containsEntry("general.quantization_version", "2");
        }
    }

    @Test
    void untiedOutputsGetMoreBitsAndRowsThatFitNoBlockAnotherType() {
        Path output = folder.resolve("model.gguf");

        ModelFiles.quantize(golden(), output, "Q4_K_M", 0); // rows of 64 and 96 elements

        try (GgufFile model = GgufFile.open(output)) {
            Map<String, String> types =
                    model.tensors().stream().collect(Collectors.toMap(GgufFile.Tensor::name, GgufFile.Tensor::type));
            assertThat(types)
                    .containsEntry("output.weight", "Q8_0")
                    .containsEntry("token_embd.weight", "Q5_0")
                    .containsEntry("blk.0.attn_q.weight", "Q5_0")
                    .containsEntry("blk.1.attn_v.weight", "Q8_0");
        }
        ModelFiles.quantize(golden(), output, "Q4_0", 0);
        try (GgufFile model = GgufFile.open(output)) {
            Map<String, String> types =
                    model.tensors().stream().collect(Collectors.toMap(GgufFile.Tensor::name, GgufFile.Tensor::type));
            assertThat(types).containsEntry("output.weight", "Q8_0").containsEntry("token_embd.weight", "Q4_0");
        }
    }

    @Test
    void theNumberOfThreadsDoesNotChangeTheFile() throws IOException {
        ModelFiles.quantize(TestModels.austen(), folder.resolve("one.gguf"), "Q5_K_M", 1);
        ModelFiles.quantize(TestModels.austen(), folder.resolve("three.gguf"), "Q5_K_M", 3);

        assertThat(Files.mismatch(folder.resolve("one.gguf"), folder.resolve("three.gguf")))
                .isEqualTo(-1);
    }

    @Test
    void theFileIsThatOfLlamaCpp() {
        Path f16 = TestModels.repository("../shared/models/austen-7m-f16.gguf");
        assumeTrue(Files.exists(f16), () -> f16 + " is not there");
        ModelFiles.quantize(f16, folder.resolve("q4_0.gguf"), "Q4_0", 0);

        assertSameTensors(folder.resolve("q4_0.gguf"), TestModels.austen());
    }

    @Test
    void refusesInOneLine() throws IOException {
        Path model = TestModels.austen();
        Path output = folder.resolve("new.gguf");
        refused(
                InvalidArgumentException.class,
                "type \"Q4_X\" does not exist; there are F32, F16",
                () -> ModelFiles.quantize(model, output, "Q4_X", 0));
        refused(
                UnsupportedException.class,
                "needs an importance matrix",
                () -> ModelFiles.quantize(model, output, "IQ2_XXS", 0));
        refused(
                InvalidArgumentException.class,
                "is the model itself",
                () -> ModelFiles.quantize(
                        model,
                        folder.resolve("../" + folder.getFileName()).resolve(folder.relativize(model.toAbsolutePath())),
                        "Q8_0",
                        0));
        refused(
                FileAccessException.class,
                "missing.gguf",
                () -> ModelFiles.quantize(folder.resolve("missing.gguf"), output, "Q8_0", 0));
        refused(
                FileAccessException.class,
                "no/where.gguf",
                () -> ModelFiles.quantize(model, folder.resolve("no/where.gguf"), "Q8_0", 0));
        Path text = Files.writeString(folder.resolve("text"), "text");
        refused(FileFormatException.class, "not a GGUF file", () -> ModelFiles.quantize(text, output, "Q8_0", 0));
        try (Model base = Model.load(model);
                Adapter adapter = Adapter.create(base, LoraConfig.defaults())) {
            adapter.save(folder);
            refused(
                    UnsupportedException.class,
                    "is an adapter",
                    () -> ModelFiles.quantize(folder.resolve("adapter.gguf"), output, "Q8_0", 0));
            refused(
                    InvalidArgumentException.class,
                    "is the model itself",
                    () -> ModelFiles.merge(adapter, model, null));
            float[] b = adapter.values(1);
            b[3] = Float.MAX_VALUE;
            adapter.setValues(1, b);
            refused(NonFiniteException.class, "row 0 has the value", () -> ModelFiles.merge(adapter, output, "F16"));
        }
        assertThat(output).doesNotExist();
        assertThat(folder.toFile().list()).doesNotContain("new.gguf.tmp");
    }

    // ----

    private static Path golden() {
        return TestModels.repository("native/tests/data/model_goldens/grouped_heads_f32/model.gguf");
    }

    private static void refused(Class<? extends LoricaException> type, String part, ThrowingCallable call) {
        assertThatThrownBy(call)
                .isInstanceOf(type)
                .hasMessageContaining(part)
                .message()
                .doesNotContain("\n");
    }

    private static float[] logits(Model model, Adapter adapter) {
        return Logits.ofLast(model, adapter, TOKENS);
    }

    private static float largest(float[] values) {
        return distance(values, new float[values.length]);
    }

    private static float distance(float[] a, float[] b) {
        float largest = 0;
        for (int i = 0; i < a.length; i++) {
            largest = Math.max(largest, Math.abs(a[i] - b[i]));
        }
        return largest;
    }

    private static void assertSameTensors(Path one, Path other) {
        Map<String, byte[]> tensors = bytes(one);
        Map<String, byte[]> others = bytes(other);
        assertThat(tensors.keySet()).containsExactlyInAnyOrderElementsOf(others.keySet());
        tensors.forEach((name, data) ->
                assertThat(Arrays.equals(data, others.get(name))).as(name).isTrue());
    }

    private static Map<String, byte[]> bytes(Path file) {
        return TestModels.tensorBytes(file);
    }
}
