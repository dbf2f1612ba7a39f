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
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.UnsupportedException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** IA3 and BitFit: made, written and read in both formats, on models of several families. */
class AdapterMethodsTest {
    @TempDir
    Path folder;

    @Test
    void theModulesOfIa3AreThoseOfPeft() {
        record Case(String family, String modules, int vectors) {}
        for (Case one : List.of(
                new Case("ia3_llama", "k_proj,v_proj,down_proj", 6),
                new Case("ia3_gpt2", "c_attn,c_proj", 4),
                new Case("ia3_falcon", "query_key_value,dense_4h_to_h", 4),
                new Case("gemma2", "q_proj,v_proj,down_proj", 9))) {
            try (Model model = model(one.family);
                    Adapter adapter = Adapter.create(model, Ia3Config.defaults())) {
                assertThat(adapter.info().method()).isEqualTo(Method.IA3);
                assertThat(String.join(",", adapter.info().targetModules())).isEqualTo(one.modules);
                assertThat(adapter.tensors()).hasSize(one.vectors);
                assertThat(adapter.hasEffect()).isFalse();
                move(adapter);
                assertThat(adapter.hasEffect()).isTrue();
            }
        }
    }

    @Test
    void ia3ComesBackFromBothFormatsOnEveryOrderOfRows() throws Exception {
        for (String family : List.of("ia3_llama", "ia3_gpt2", "ia3_falcon", "phi3")) {
            Ia3Config config = family.equals("phi3")
                    ? new Ia3Config(List.of("qkv_proj", "blk.1.ffn_down"), List.of("blk.1.ffn_down"))
                    : Ia3Config.defaults();
            Path output = folder.resolve(family);
            try (Model model = model(family);
                    Adapter adapter = Adapter.create(model, config)) {
                move(adapter);
                adapter.save(output, Set.of(Adapter.Format.GGUF, Adapter.Format.PEFT), "base");
                try (Adapter loaded = Adapter.load(model, output)) {
                    assertSame(loaded, adapter);
                    assertThat(loaded.metadata().method()).isEqualTo(Method.IA3);
                    assertThat(loaded.metadata().ia3()).isEqualTo(config);
                }
                Files.delete(output.resolve(Adapter.FILE_NAME));
                Files.delete(output.resolve(AdapterMetadata.FILE_NAME));
                try (Adapter loaded = Adapter.load(model, output)) {
                    assertSame(loaded, adapter);
                }
            }
        }
    }

    @Test
    void whatPeftNeedsToReadIsInItsConfiguration() throws Exception {
        try (Model model = model("ia3_gpt2");
                Adapter adapter = Adapter.create(model, Ia3Config.defaults())) {
            move(adapter);
            adapter.exportPeft(folder, "gpt2");
            JsonNode config = new ObjectMapper()
                    .readTree(folder.resolve("adapter_config.json").toFile());
            assertThat(config.get("peft_type").asText()).isEqualTo("IA3");
            assertThat(config.get("target_modules").toString()).isEqualTo("[\"c_attn\",\"mlp.c_proj\"]");
            assertThat(config.get("feedforward_modules").toString()).isEqualTo("[\"mlp.c_proj\"]");
            assertThat(config.get("fan_in_fan_out").asBoolean()).isTrue();
        }
    }

    @Test
    void aConfigurationThatDoesNotFitIsRefused() throws Exception {
        try (Model model = model("ia3_llama");
                Adapter adapter = Adapter.create(model, Ia3Config.defaults())) {
            adapter.exportPeft(folder, "base");
            assertThatThrownBy(() -> Adapter.load(model, folder).close())
                    .isInstanceOf(FileFormatException.class)
                    .hasMessageContaining("every factor is 1");
            move(adapter);
            adapter.exportPeft(folder, "base");
            Path file = folder.resolve("adapter_config.json");
            ObjectNode config = (ObjectNode) new ObjectMapper().readTree(file.toFile());
            Files.delete(folder.resolve(AdapterMetadata.FILE_NAME));
            config.putArray("target_modules").add("k_proj").add("v_proj");
            Files.writeString(file, config.toString());
            assertThatThrownBy(() -> Adapter.load(model, folder).close())
                    .isInstanceOf(MismatchException.class)
                    .hasMessageContaining("unexpected")
                    .hasMessageContaining("down_proj.ia3_l");
            config.put("target_modules", ".*(k|v|down)_proj");
            config.put("feedforward_modules", ".*down_proj");
            Files.writeString(file, config.toString());
            try (Adapter loaded = Adapter.load(model, folder)) {
                assertSame(loaded, adapter);
            }
            config.put("task_type", "TOKEN_CLS");
            Files.writeString(file, config.toString());
            assertThatThrownBy(() -> Adapter.load(model, folder).close())
                    .isInstanceOf(UnsupportedException.class)
                    .hasMessageContaining("TOKEN_CLS");
        }
    }

    @Test
    void bitFitHasItsOwnFileAndNoneOfPeft() {
        try (Model model = model("bitfit_llama");
                Adapter adapter = Adapter.create(model, new BitFitConfig())) {
            assertThat(adapter.tensors())
                    .extracting(Adapter.Tensor::name)
                    .contains("blk.0.attn_q.bias", "blk.1.ffn_norm.weight", "output_norm.weight");
            assertThat(adapter.hasEffect()).isFalse();
            move(adapter);
            adapter.save(folder);
            try (Adapter loaded = Adapter.load(model, folder)) {
                assertSame(loaded, adapter);
                assertThat(loaded.hasEffect()).isTrue();
            }
            assertThatThrownBy(() -> adapter.exportPeft(folder))
                    .isInstanceOf(UnsupportedException.class)
                    .hasMessageContaining("PEFT has no adapters of method bitfit");
            assertThatThrownBy(() ->
                            Adapter.stack(model, List.of(new ScaledAdapter(adapter, 1), new ScaledAdapter(adapter, 1))))
                    .isInstanceOf(UnsupportedException.class)
                    .hasMessageContaining("cannot be added to others");
        }
    }

    @Test
    void aFeedForwardModuleIsATarget() {
        try (Model model = model("ia3_llama")) {
            assertThatThrownBy(() -> Adapter.create(model, new Ia3Config(List.of("k_proj"), List.of("down_proj"))))
                    .isInstanceOf(InvalidArgumentException.class)
                    .hasMessageContaining("'down_proj' is none of the target modules");
        }
    }
}
