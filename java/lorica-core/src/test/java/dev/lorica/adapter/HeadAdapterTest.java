package dev.lorica.adapter;

import static dev.lorica.adapter.GoldenAdapters.assertSame;
import static dev.lorica.adapter.GoldenAdapters.model;
import static dev.lorica.adapter.GoldenAdapters.move;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Model;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.files.SafetensorsWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** LoRA on the output head in both formats, on heads of their own and on tied ones. */
class HeadAdapterTest {
    @TempDir
    Path folder;

    private static LoraConfig config(String... modules) {
        return LoraConfig.builder().rank(2).targetModules(List.of(modules)).build();
    }

    @Test
    void comesBackFromBothFormatsUnderTheNamesOfPeft() throws Exception {
        record Case(String family, String layer, String head) {}
        for (Case one : List.of(
                new Case("qwen2", "q_proj", "lm_head"),
                new Case("gemma2", "down_proj", "lm_head"),
                new Case("gptneox", "dense", "embed_out"),
                new Case("gpt2", "c_attn", "lm_head"))) {
            Path output = folder.resolve(one.family);
            try (Model model = model(one.family);
                    Adapter adapter = Adapter.create(model, config(one.layer, one.head))) {
                move(adapter);
                assertThat(adapter.info().targetModules()).containsExactly(one.layer, one.head);
                adapter.save(output, Set.of(Adapter.Format.GGUF, Adapter.Format.PEFT), "base");
                JsonNode peft = new ObjectMapper()
                        .readTree(output.resolve("adapter_config.json").toFile());
                assertThat(peft.get("target_modules").toString()).contains("\"" + one.head + "\"");
                try (SafetensorsFile file = SafetensorsFile.open(output.resolve("adapter_model.safetensors"))) {
                    assertThat(file.tensors())
                            .containsKeys(
                                    "base_model.model." + one.head + ".lora_A.weight",
                                    "base_model.model." + one.head + ".lora_B.weight");
                }
                try (Adapter loaded = Adapter.load(model, output)) {
                    assertSame(loaded, adapter);
                }
                Files.delete(output.resolve(Adapter.FILE_NAME));
                Files.delete(output.resolve(AdapterMetadata.FILE_NAME));
                try (Adapter loaded = Adapter.load(model, output)) {
                    assertSame(loaded, adapter);
                }
            }
        }
    }

    /** PEFT saves the embedding and the head of the base as well, once one of them is adapted. */
    @Test
    void whatPeftSavesOfTheBaseBesideItIsPassedOver() throws Exception {
        try (Model model = model("qwen2");
                Adapter adapter = Adapter.create(model, config("lm_head"))) {
            move(adapter);
            adapter.exportPeft(folder, "base");
            Files.delete(folder.resolve(AdapterMetadata.FILE_NAME));
            Path weights = folder.resolve("adapter_model.safetensors");
            SafetensorsWriter more = new SafetensorsWriter();
            try (SafetensorsFile file = SafetensorsFile.open(weights)) {
                file.tensors().forEach((name, tensor) -> more.add(name, tensor.shape(), () -> file.read(tensor)));
                more.add("base_model.model.lm_head.base_layer.weight", List.of(96L, 32L), () -> new float[96 * 32]);
                more.add("base_model.model.model.embed_tokens.weight", List.of(96L, 32L), () -> new float[96 * 32]);
                more.write(folder.resolve("more.safetensors"));
            }
            Files.move(folder.resolve("more.safetensors"), weights, StandardCopyOption.REPLACE_EXISTING);
            try (Adapter loaded = Adapter.load(model, folder)) {
                assertSame(loaded, adapter);
            }
        }
    }

    @Test
    void allLinearLeavesItOutAndPatternsAndRanksReachIt() throws Exception {
        try (Model model = model("qwen2")) {
            try (Adapter all = Adapter.create(model, config("all-linear"))) {
                assertThat(all.info().targetModules()).doesNotContain("lm_head");
            }
            LoraConfig some = LoraConfig.builder()
                    .rank(2)
                    .targetModules(List.of("all-linear", "lm_head"))
                    .layersToTransform(List.of(1))
                    .rankPattern(Map.of("lm_head", 5))
                    .build();
            try (Adapter adapter = Adapter.create(model, some)) {
                assertThat(adapter.info().targetModules()).contains("lm_head");
                assertThat(adapter.tensors().get(adapter.tensors().size() - 2).rows())
                        .isEqualTo(5);
                assertThat(adapter.tensors()).noneMatch(tensor -> tensor.name().startsWith("blk.0."));
            }
            // As folders of PEFT say it: in words, and by a pattern.
            record Case(String modules, String... layers) {}
            for (Case one : List.of(
                    new Case("all-linear", "all-linear"), new Case(".*(v_proj|lm_head)", "v_proj", "lm_head"))) {
                Path peft = folder.resolve(one.layers[0]);
                try (Adapter adapter = Adapter.create(model, config(one.layers))) {
                    move(adapter);
                    adapter.exportPeft(peft, "base");
                    Files.delete(peft.resolve(AdapterMetadata.FILE_NAME));
                    Path file = peft.resolve("adapter_config.json");
                    ObjectNode json = (ObjectNode) new ObjectMapper().readTree(file.toFile());
                    new ObjectMapper().writeValue(file.toFile(), json.put("target_modules", one.modules));
                    try (Adapter loaded = Adapter.load(model, peft)) {
                        assertSame(loaded, adapter);
                    }
                }
            }
            assertThatThrownBy(() -> Adapter.create(
                            model,
                            LoraConfig.builder()
                                    .rank(2)
                                    .useDora(true)
                                    .targetModules(List.of("lm_head"))
                                    .build()))
                    .isInstanceOf(UnsupportedException.class)
                    .hasMessageContaining("DoRA on the output head (lm_head) cannot be computed");
        }
    }
}
