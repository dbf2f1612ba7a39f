package dev.lorica.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.convert.ModelFiles;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.files.SafetensorsWriter;
import dev.lorica.generate.Logits;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Consumer;
import java.util.function.Predicate;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Adapters that PEFT saved, and what it computed with them; scripts/make_peft_goldens.py made them. */
class PeftFolderTest {
    private static final ObjectMapper JSON = new ObjectMapper();

    private static Model model;

    @TempDir
    Path folder;

    @BeforeAll
    static void load() {
        model = Model.load(
                TestModels.repository("native/tests/data/model_goldens/grouped_heads_f32/model.gguf"),
                new ModelConfig("cpu", Precision.F32, 2));
    }

    @AfterAll
    static void close() {
        model.close();
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "plain",
                "rslora",
                "patterns",
                "rslora_patterns",
                "one_layer",
                "regular_expression",
                "dora",
                "alora"
            })
    void adaptersOfPeftGiveItsLogitsHoweverTheyAreSavedAgain(String name) {
        try (Adapter peft = Adapter.load(model, golden(name))) {
            assertLogits(name, peft);
            peft.save(folder.resolve("gguf"));
            peft.exportPeft(folder.resolve("peft"), "base");
        }
        for (String format : List.of("gguf", "peft")) {
            try (Adapter again = Adapter.load(model, folder.resolve(format))) {
                assertLogits(name, again);
            }
        }
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "plain",
                "rslora",
                "patterns",
                "rslora_patterns",
                "one_layer",
                "regular_expression",
                "dora",
                "alora"
            })
    void anExportedAdapterHasTheTensorsThatPeftSaved(String name) {
        try (Adapter peft = Adapter.load(model, golden(name))) {
            peft.exportPeft(folder, "base");
        }

        try (SafetensorsFile theirs = SafetensorsFile.open(golden(name).resolve("adapter_model.safetensors"));
                SafetensorsFile ours = SafetensorsFile.open(folder.resolve("adapter_model.safetensors"))) {
            assertThat(ours.tensors().keySet())
                    .containsExactlyInAnyOrderElementsOf(theirs.tensors().keySet());
            theirs.tensors().forEach((key, tensor) -> {
                assertThat(ours.tensors().get(key).shape()).as(key).isEqualTo(tensor.shape());
                assertThat(ours.read(ours.tensors().get(key))).as(key).isEqualTo(theirs.read(tensor));
            });
            assertThat(ours.metadata()).containsEntry("format", "pt");
        }
    }

    @Test
    void aMergedDoraGivesTheLogitsOfTheAdapter() {
        Path merged = folder.resolve("merged.gguf");
        try (Adapter dora = Adapter.load(model, golden("dora"))) {
            assertThat(dora.info().useDora()).isTrue();
            ModelFiles.merge(dora, merged, "F32");
        }
        try (Model whole = Model.load(merged, new ModelConfig("cpu", Precision.F32, 2))) {
            assertLogits("dora", whole, null);
        }
    }

    @Test
    void aDoraAtHalfItsStrengthIsBetweenTheBaseAndTheWhole() {
        try (Adapter dora = Adapter.load(model, golden("dora"))) {
            float[] whole = logits(model, dora, "dora");
            dora.setScale(0);
            float[] none = logits(model, dora, "dora");
            assertThat(distance(none, logits(model, null, "dora"))).isLessThan(1e-5);
            dora.setScale(0.5);
            float[] half = logits(model, dora, "dora");
            assertThat(distance(half, none)).isBetween(0.3 * distance(whole, none), 0.7 * distance(whole, none));
            assertThat(distance(half, whole)).isBetween(0.3 * distance(whole, none), 0.7 * distance(whole, none));
        }
    }

    @Test
    void magnitudesMustBeThere() {
        copy("dora", config -> {}, name -> !name.contains("layers.1.self_attn.q_proj.lora_magnitude_vector"), Map.of());
        refused(
                MismatchException.class,
                "missing \"base_model.model.model.layers.1.self_attn.q_proj.lora_magnitude_vector\"");
        copy("dora", config -> config.put("use_dora", false));
        refused(
                MismatchException.class,
                "unexpected \"base_model.model.model.layers.0.mlp.down_proj.lora_magnitude_vector\"");
    }

    @Test
    void patternsAndLayersMeanWhatTheyMeanInPeft() {
        LoraConfig patterns = LoraConfig.builder()
                .rank(4)
                .alpha(6)
                .targetModules("q_proj", "k_proj", "v_proj", "down_proj")
                .rankPattern(
                        inOrder("layers.1.self_attn.q_proj", 5, "model\\.layers\\.[01]\\.mlp\\..*", 2, "q_proj", 3))
                .alphaPattern(inOrder("^model.layers.0.*", 3.0, "k_proj", 10.0, "q_proj", 7.0))
                .build();
        LoraConfig rslora = LoraConfig.builder()
                .rank(4)
                .alpha(6)
                .targetModules("k_proj", "o_proj")
                .useRslora(true)
                .rankPattern(Map.of("k_proj", 7))
                .alphaPattern(Map.of("layers.1.self_attn.o_proj", 2.0))
                .build();
        LoraConfig oneLayer = LoraConfig.builder()
                .rank(2)
                .alpha(8)
                .targetModules("q_proj", "up_proj")
                .layersToTransform(List.of(1))
                .build();
        Map.of("patterns", patterns, "rslora_patterns", rslora, "one_layer", oneLayer)
                .forEach((name, config) -> {
                    try (Adapter theirs = Adapter.load(model, golden(name));
                            Adapter ours = Adapter.create(model, config)) {
                        assertThat(ours.tensors()).as(name).isEqualTo(theirs.tensors());
                    }
                });
    }

    @Test
    void patternsThatFitNothingAreRefused() {
        LoraConfig.Builder config = LoraConfig.builder().targetModules("q_proj");
        assertThatThrownBy(() -> Adapter.create(
                        model, config.rankPattern(Map.of("v_proj", 2)).build()))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("rank pattern \"v_proj\" fits none of the modules that are adapted");
        assertThatThrownBy(() ->
                        Adapter.create(model, config.rankPattern(Map.of("(", 2)).build()))
                .hasMessageContaining("\"(\" is no regular expression");
        assertThatThrownBy(() -> Adapter.create(
                        model,
                        config.rankPattern(Map.of())
                                .layersToTransform(List.of(2))
                                .build()))
                .hasMessageContaining("names layer 2; this model has layers 0 to 1");
        assertThatThrownBy(() -> Adapter.create(
                        model,
                        config.layersToTransform(List.of(1))
                                .targetModules("q_prj")
                                .build()))
                .hasMessageContaining("'q_prj' does not exist");
    }

    private static <T> Map<String, T> inOrder(String first, T one, String second, T two, String third, T three) {
        Map<String, T> map = new LinkedHashMap<>();
        map.put(first, one);
        map.put(second, two);
        map.put(third, three);
        return map;
    }

    @Test
    void theConfigurationSaysWhatPeftNeeds() throws IOException {
        LoraConfig lora = LoraConfig.builder()
                .rank(4)
                .alpha(8.5)
                .dropout(0.05)
                .useRslora(true)
                .targetModules("q_proj", "blk.1.ffn_up:2", "blk.0.attn_v:3:5")
                .build();
        try (Adapter adapter = Adapter.create(model, lora)) {
            adapter.exportPeft(folder, "owner/base");
        }

        JsonNode config = JSON.readTree(folder.resolve("adapter_config.json").toFile());
        assertThat(config.get("peft_type").asText()).isEqualTo("LORA");
        assertThat(config.get("task_type").asText()).isEqualTo("CAUSAL_LM");
        assertThat(config.get("base_model_name_or_path").asText()).isEqualTo("owner/base");
        assertThat(config.get("r").asInt()).isEqualTo(4);
        assertThat(config.get("lora_alpha").asText()).isEqualTo("8.5");
        assertThat(config.get("lora_dropout").asText()).isEqualTo("0.05");
        assertThat(config.get("use_rslora").asBoolean()).isTrue();
        assertThat(config.get("target_modules").toString())
                .isEqualTo("[\"q_proj\",\"model.layers.0.self_attn.v_proj\",\"model.layers.1.mlp.up_proj\"]");
        assertThat(config.get("rank_pattern").toString())
                .isEqualTo("{\"model.layers.0.self_attn.v_proj\":3,\"model.layers.1.mlp.up_proj\":2}");
        assertThat(config.get("alpha_pattern").toString()).isEqualTo("{\"model.layers.0.self_attn.v_proj\":5}");
    }

    @Test
    void aFolderHoldsBothFormatsAndTheBaseIsKnownAgain() throws IOException {
        try (Adapter peft = Adapter.load(model, golden("plain"))) {
            peft.save(folder);
            peft.exportPeft(folder);
        }

        assertThat(folder.toFile().list())
                .containsExactlyInAnyOrder(
                        "adapter.gguf", "adapter_config.json", "adapter_model.safetensors", "lorica_adapter.json");
        assertThat(JSON.readTree(folder.resolve("adapter_config.json").toFile())
                        .get("base_model_name_or_path")
                        .asText())
                .isEqualTo("grouped_heads_f32");
        try (Adapter weights = Adapter.load(model, folder.resolve("adapter_model.safetensors"))) {
            assertLogits("plain", weights);
        }
        Path side = folder.resolve("lorica_adapter.json");
        Files.writeString(side, Files.readString(side).replace(model.info().fingerprint(), "0123456789abcdef"));
        Files.delete(folder.resolve("adapter.gguf"));
        refused(MismatchException.class, "fingerprint 0123456789abcdef");
    }

    // ---- where PEFT is silent

    @Test
    void namesMissingAndUnexpectedTensors() {
        copy(
                "plain",
                config -> {},
                name -> !name.contains("layers.1.mlp"),
                Map.of("base_model.model.lm_head.lora_A.weight", List.of(8L, 64L)));

        refused(
                MismatchException.class,
                "missing \"base_model.model.model.layers.1.mlp.gate_proj.lora_A.weight\", ",
                " and 3 more; unexpected \"base_model.model.lm_head.lora_A.weight\"");
    }

    @Test
    void tensorsWithoutTheirPrefixAreNotLeftOut() {
        copy(
                "one_layer",
                config -> {},
                name -> false,
                Map.of("model.layers.1.self_attn.q_proj.lora_A.weight", List.of(2L, 64L)));

        refused(
                MismatchException.class,
                "missing \"base_model.model.",
                "unexpected \"model.layers.1.self_attn.q_proj.lora_A.weight\"");
    }

    @Test
    void needsWhatPeftWouldGuess() {
        copy("plain", config -> config.remove("lora_alpha"));
        refused(FileFormatException.class, "adapter_config.json has no \"lora_alpha\"");
        copy("plain", config -> config.put("r", 4));
        refused(MismatchException.class, "has A [8, 64] and B [64, 8], but adapter_config.json gives it the rank 4");
    }

    @Test
    void refusesAnAdapterWithoutEffect() {
        try (Adapter untrained = Adapter.create(model, LoraConfig.defaults())) {
            untrained.exportPeft(folder);
        }

        refused(FileFormatException.class, "has no effect: every B is zero");
    }

    @Test
    void refusesWhatItDoesNotCompute() {
        Map<Consumer<ObjectNode>, String> cases = Map.of(
                config -> config.put("peft_type", "LOHA"), "peft_type \"LOHA\" is not supported",
                config -> config.put("task_type", "TOKEN_CLS"), "task_type \"TOKEN_CLS\" is not supported",
                config -> config.put("init_lora_weights", "pissa_niter_4"), "changes the base model too",
                config -> config.put("fan_in_fan_out", true), "fan_in_fan_out is set",
                config -> config.putArray("layer_replication").addArray().add(0).add(2), "layer_replication is set");
        cases.forEach((change, message) -> {
            copy("plain", change);
            refused(UnsupportedException.class, message);
        });
    }

    @Test
    void modulesToSaveAndBiasesMustBeThere() {
        copy("plain", config -> config.putArray("modules_to_save").add("lm_head"));
        refused(MismatchException.class, "missing \"base_model.model.lm_head.weight\"");
        copy("plain", config -> config.put("bias", "some"));
        refused(FileFormatException.class, "bias \"some\" is none of \"none\", \"lora_only\" and \"all\"");
    }

    @Test
    void refusesModulesThatTheModelDoesNotHave() {
        copy("plain", config -> config.putArray("target_modules").add("q_proj").add("c_attn"));

        refused(MismatchException.class, "target_modules names \"c_attn\"");
    }

    @Test
    void aPatternThatNeverEndsIsAnError() {
        copy("plain", config -> config.put("target_modules", "(.*)(.*)(.*)(.*)(.*)(.*)(.*)!"));

        refused(FileFormatException.class, "takes too long to match");
    }

    @Test
    void refusesAnotherShapeAndPickles() throws IOException {
        copy(
                "plain",
                config -> {},
                name -> !name.endsWith("layers.0.self_attn.q_proj.lora_A.weight"),
                Map.of("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", List.of(8L, 65L)));
        refused(MismatchException.class, "has the shape [8, 65]; this model needs [8, 64]");

        Files.move(folder.resolve("adapter_model.safetensors"), folder.resolve("adapter_model.bin"));
        refused(FileAccessException.class, "adapter_model.bin is a pickle");
    }

    @Test
    void damagedConfigurationsAreOneLine() throws IOException {
        copy("plain", config -> {});
        for (String json :
                List.of("", "[]", "{", "{\"peft_type\": 3}", "null", "{\"r\":1,\"r\":2}", "[".repeat(100_000))) {
            Files.writeString(folder.resolve("adapter_config.json"), json);
            assertThatThrownBy(() -> Adapter.load(model, folder))
                    .isInstanceOf(LoricaException.class)
                    .message()
                    .doesNotContain("\n");
        }
    }

    // ----

    private static Path golden(String name) {
        return TestModels.repository("java/lorica-core/src/test/resources/peft").resolve(name);
    }

    private static void assertLogits(String name, Adapter adapter) {
        assertLogits(name, model, adapter);
    }

    private static void assertLogits(String name, Model model, Adapter adapter) {
        float[] expected = goldenArray(name, "logits");
        float largest = 0;
        for (float value : expected) {
            largest = Math.max(largest, Math.abs(value));
        }
        float[] logits = logits(model, adapter, name);
        for (int i = 0; i < expected.length; i++) {
            assertThat(logits[i]).as("logit %d", i).isCloseTo(expected[i], within(1e-4f * largest));
        }
    }

    /** Of every token of the golden's text. */
    private static float[] logits(Model model, Adapter adapter, String name) {
        float[] tokens = goldenArray(name, "tokens");
        int[] ids = new int[tokens.length];
        Arrays.setAll(ids, t -> (int) tokens[t]);
        int vocabulary = model.info().vocabSize();
        float[] all = new float[tokens.length * vocabulary];
        float[][] logits = Logits.of(model, adapter, ids);
        for (int t = 0; t < tokens.length; t++) {
            System.arraycopy(logits[t], 0, all, t * vocabulary, vocabulary);
        }
        return all;
    }

    private static float[] goldenArray(String name, String array) {
        try (SafetensorsFile golden = SafetensorsFile.open(golden(name).resolve("golden.safetensors"))) {
            return golden.read(golden.tensors().get(array));
        }
    }

    private static double distance(float[] a, float[] b) {
        double sum = 0;
        for (int i = 0; i < a.length; i++) {
            sum += (a[i] - b[i]) * (double) (a[i] - b[i]);
        }
        return Math.sqrt(sum);
    }

    private void refused(Class<? extends Throwable> type, String... parts) {
        assertThatThrownBy(() -> Adapter.load(model, folder))
                .isInstanceOf(type)
                .hasMessageContainingAll(parts)
                .message()
                .doesNotContain("\n");
    }

    private void copy(String name, Consumer<ObjectNode> change) {
        copy(name, change, tensor -> true, Map.of());
    }

    /** A golden adapter with another configuration, some of its tensors, and others beside them. */
    private void copy(String name, Consumer<ObjectNode> change, Predicate<String> kept, Map<String, List<Long>> added) {
        try (SafetensorsFile weights = SafetensorsFile.open(golden(name).resolve("adapter_model.safetensors"))) {
            ObjectNode config = (ObjectNode)
                    JSON.readTree(golden(name).resolve("adapter_config.json").toFile());
            change.accept(config);
            JSON.writeValue(folder.resolve("adapter_config.json").toFile(), config);
            SafetensorsWriter writer = new SafetensorsWriter();
            weights.tensors().values().stream()
                    .filter(tensor -> kept.test(tensor.name()))
                    .forEach(tensor -> writer.add(tensor.name(), tensor.shape(), () -> weights.read(tensor)));
            new TreeMap<>(added)
                    .forEach((tensor, shape) ->
                            writer.add(tensor, shape, () -> new float[(int) (shape.get(0) * shape.get(1))]));
            writer.write(folder.resolve("adapter_model.safetensors"));
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }
}
