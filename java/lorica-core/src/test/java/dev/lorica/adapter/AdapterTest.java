package dev.lorica.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalStateException;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.lorica.Model;
import dev.lorica.TestModels;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.MismatchException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class AdapterTest {
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

    @Test
    void isWhatItsConfigSays() {
        LoraConfig config = LoraConfig.builder()
                .rank(4)
                .alpha(8)
                .dropout(0.1)
                .targetModules("q_proj", "v_proj")
                .build();
        try (Adapter adapter = Adapter.create(model, config)) {
            AdapterInfo info = adapter.info();

            assertThat(info.rank()).isEqualTo(4);
            assertThat(info.alpha()).isEqualTo(8);
            assertThat(info.scale()).isEqualTo(2);
            assertThat(info.targetModules()).containsExactly("q_proj", "v_proj");
            assertThat(info.pairs()).isEqualTo(2 * model.info().layers());
            assertThat(info.baseFingerprint()).isEqualTo(model.info().fingerprint());
            assertThat(adapter.tensors()).hasSize(2 * info.pairs());
            assertThat(adapter.tensors().stream()
                            .mapToLong(t -> t.rows() * t.columns())
                            .sum())
                    .isEqualTo(info.parameters());
            assertThat(adapter.tensors().get(0).name()).isEqualTo("blk.0.attn_q.weight.lora_a");
            assertThat(adapter.tensors().get(0).rows()).isEqualTo(4);
        }
    }

    @Test
    void targetModulesMayBeARegularExpressionAndSomeExcluded() {
        LoraConfig.Builder config = LoraConfig.builder().rank(2).targetModules(".*layers\\.[01]\\..*(q|k|v)_proj");
        assertThat(bases(config.build())).hasSize(6).contains("blk.0.attn_k", "blk.1.attn_v");
        assertThat(bases(config.excludeModules(List.of("k_proj")).build()))
                .containsExactly("blk.0.attn_q", "blk.0.attn_v", "blk.1.attn_q", "blk.1.attn_v");
        assertThat(bases(
                        config.excludeModules(List.of("k_proj", "blk\\.1\\..*")).build()))
                .containsExactly("blk.0.attn_q", "blk.0.attn_v");
        assertThatThrownBy(() -> Adapter.create(
                        model, config.excludeModules(List.of("o_proj")).build()))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessage("exclude modules \"o_proj\" fits none of the modules that would be adapted");
        assertThatThrownBy(() -> Adapter.create(
                        model,
                        LoraConfig.builder().targetModules("q_pro[j", "x").build()))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("\"q_pro[j\" is no regular expression");
        assertThatThrownBy(() -> Adapter.create(
                        model, LoraConfig.builder().targetModules("q_.*").build()))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("\"q_.*\" fits no layer's whole name, such as model.layers.0.self_attn.q_proj");
    }

    private static List<String> bases(LoraConfig config) {
        try (Adapter adapter = Adapter.create(model, config)) {
            return adapter.tensors().stream()
                    .filter(Adapter.Tensor::isA)
                    .map(tensor -> tensor.name().replaceFirst("\\.weight\\.lora_a$", ""))
                    .toList();
        }
    }

    @Test
    void theSameSeedGivesTheSameAdapterAndAnotherAnother() {
        try (Adapter one = Adapter.create(model, LoraConfig.builder().seed(1).build());
                Adapter same =
                        Adapter.create(model, LoraConfig.builder().seed(1).build());
                Adapter other =
                        Adapter.create(model, LoraConfig.builder().seed(2).build())) {
            assertThat(one.values(0)).isEqualTo(same.values(0)).isNotEqualTo(other.values(0));
            assertThat(one.values(1)).containsOnly(0f);
        }
    }

    @Test
    void orthogonalBeginsWithoutEffectAndWithBothMatrices() {
        LoraConfig.Builder config = LoraConfig.builder()
                .rank(4)
                .init(LoraConfig.Init.ORTHOGONAL)
                .targetModules("k_proj")
                .seed(3);
        try (Adapter adapter = Adapter.create(model, config.build());
                Adapter same = Adapter.create(model, config.build())) {
            float[] a = adapter.values(0);
            float[] b = adapter.values(1);
            assertThat(same.values(0)).isEqualTo(a);
            assertThat(same.values(1)).isEqualTo(b).doesNotContain(0f);
            int in = (int) adapter.tensors().get(0).columns();
            for (int row = 0; row < b.length / 4; row += 7) {
                for (int column = 0; column < in; column += 5) {
                    double sum = 0;
                    for (int k = 0; k < 4; k++) {
                        sum += (double) b[4 * row + k] * a[k * in + column];
                    }
                    assertThat(sum).isCloseTo(0, within(1e-7));
                }
            }
        }
        assertThatThrownBy(() -> Adapter.create(model, config.rank(3).build()))
                .hasMessageContaining("needs even ranks");
    }

    @Test
    void comesBackAsItWasSaved() {
        LoraConfig config = LoraConfig.builder().rank(4).alpha(8).build();
        try (Adapter adapter = Adapter.create(model, config)) {
            fill(adapter);
            adapter.save(folder.resolve("deep/adapter"));

            for (Path path : new Path[] {folder.resolve("deep/adapter"), folder.resolve("deep/adapter/adapter.gguf")}) {
                try (Adapter loaded = Adapter.load(model, path)) {
                    assertThat(loaded.tensors()).isEqualTo(adapter.tensors());
                    for (int i = 0; i < adapter.tensors().size(); i++) {
                        assertThat(loaded.values(i)).isEqualTo(adapter.values(i));
                    }
                    assertThat(loaded.info().scale()).isEqualTo(2);
                    assertThat(loaded.metadata()).isEqualTo(adapter.metadata());
                    assertThat(loaded.metadata().lora()).isEqualTo(config);
                }
            }
        }
    }

    @Test
    void loadsAFileWithoutSideFile() throws Exception {
        try (Adapter adapter = Adapter.create(model, LoraConfig.defaults())) {
            adapter.save(folder);
        }
        Files.delete(folder.resolve("lorica_adapter.json"));

        try (Adapter loaded = Adapter.load(model, folder)) {
            assertThat(loaded.template()).isNull();
            assertThat(loaded.metadata().lora()).isNull();
        }
    }

    @Test
    void refusesAnotherBaseInOneLine() throws Exception {
        try (Adapter adapter = Adapter.create(model, LoraConfig.defaults())) {
            adapter.save(folder);
        }
        Path side = folder.resolve("lorica_adapter.json");
        String fingerprint = model.info().fingerprint();
        Files.writeString(side, Files.readString(side).replace(fingerprint, "0123456789abcdef"));

        assertThatThrownBy(() -> Adapter.load(model, folder))
                .isInstanceOf(MismatchException.class)
                .hasMessageContaining("fingerprint 0123456789abcdef")
                .hasMessageContaining("fingerprint " + fingerprint)
                .message()
                .doesNotContain("\n");
    }

    @Test
    void saysWhatIsWrongWithAPath() throws Exception {
        Path file = Files.writeString(folder.resolve("file"), "x");

        assertThatThrownBy(() -> Adapter.load(model, folder.resolve("missing")))
                .isInstanceOf(FileAccessException.class)
                .hasMessageEndingWith("missing does not exist");
        assertThatThrownBy(() -> Adapter.load(model, folder))
                .isInstanceOf(FileAccessException.class)
                .hasMessageEndingWith("holds no adapter.gguf: it is not an adapter's folder");
        try (Adapter adapter = Adapter.create(model, LoraConfig.defaults())) {
            assertThatThrownBy(() -> adapter.save(file))
                    .isInstanceOf(FileAccessException.class)
                    .hasMessageEndingWith("is a file; a folder is meant");
            assertThatThrownBy(() -> adapter.save(file.resolve("below")))
                    .isInstanceOf(FileAccessException.class)
                    .hasMessageStartingWith(file.resolve("below") + " cannot be made: ")
                    .message()
                    .doesNotEndWith(file.resolve("below").toString());
        }
    }

    @Test
    void refusesModulesThatDoNotExist() {
        assertThatThrownBy(() -> Adapter.create(
                        model, LoraConfig.builder().targetModules("q_porj").build()))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("q_porj");
        assertThatThrownBy(() -> LoraConfig.builder().rank(0).build())
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessage("rank is 0; it must be at least 1");
        assertThatThrownBy(() -> LoraConfig.builder().targetModules().build())
                .isInstanceOf(InvalidArgumentException.class);
    }

    @Test
    void matricesOfAnotherSizeAreRefused() {
        try (Adapter adapter = Adapter.create(model, LoraConfig.defaults())) {
            assertThatThrownBy(() -> adapter.setValues(0, new float[3]))
                    .isInstanceOf(InvalidArgumentException.class)
                    .hasMessageContaining("not 3");
            assertThatThrownBy(() -> adapter.values(-1)).isInstanceOf(InvalidArgumentException.class);
            assertThatThrownBy(() -> adapter.values(adapter.tensors().size()))
                    .isInstanceOf(InvalidArgumentException.class);
        }
    }

    @Test
    void outlivesItsModel() {
        Model shortLived = Model.load(TestModels.austen());
        Adapter adapter = Adapter.create(shortLived, LoraConfig.defaults());
        shortLived.close();

        adapter.save(folder);
        adapter.close();

        assertThat(folder.resolve("adapter.gguf")).isNotEmptyFile();
        assertThatIllegalStateException().isThrownBy(adapter::info).withMessage("the adapter is closed");
        assertThatIllegalStateException().isThrownBy(() -> adapter.save(folder)).withMessage("the adapter is closed");
    }

    private static void fill(Adapter adapter) {
        for (int i = 0; i < adapter.tensors().size(); i++) {
            float[] values = adapter.values(i);
            for (int j = 0; j < values.length; j++) {
                values[j] = (float) Math.sin(i + 0.01 * j);
            }
            adapter.setValues(i, values);
        }
    }
}
