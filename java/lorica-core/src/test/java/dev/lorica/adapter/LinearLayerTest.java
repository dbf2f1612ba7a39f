package dev.lorica.adapter;

import static org.assertj.core.api.Assertions.assertThat;

import dev.lorica.Model;
import dev.lorica.TestModels;
import dev.lorica.internal.RowOrder;
import java.util.List;
import org.junit.jupiter.api.Test;

class LinearLayerTest {
    @Test
    void aModelsLinearLayersComeFromItsDescription() {
        try (Model model =
                Model.load(TestModels.repository("native/tests/data/model_goldens/grouped_heads_f32/model.gguf"))) {
            List<LinearLayer> layers = LinearLayer.of(model);

            assertThat(layers).hasSize(7 * model.info().layers() + 1);
            LinearLayer first = layers.get(0);
            assertThat(first.index()).isZero();
            assertThat(first.gguf()).isEqualTo("blk.0.attn_q");
            assertThat(first.peft()).isEqualTo("model.layers.0.self_attn.q_proj");
            assertThat(first.order().rows())
                    .hasSize(model.info().heads() * model.info().headDim())
                    .startsWith(0, model.info().headDim() / 2, 1);
            assertThat(layers.get(2).order().isSame()).isTrue();
            assertThat(first.transposed()).isFalse();
            assertThat(layers.get(13).gguf()).isEqualTo("blk.1.ffn_down");
            LinearLayer head = layers.get(14);
            assertThat(head.isHead()).isTrue();
            assertThat(head.gguf()).isEqualTo("output");
            assertThat(head.peft()).isEqualTo("lm_head");
            assertThat(head.order().isSame()).isTrue();
            assertThat(LinearLayer.ofTensor(layers, "blk.1.ffn_up.weight.lora_b"))
                    .isEqualTo(layers.get(12));
        }
    }

    @Test
    void aNameIsOneOfPeftsOrOneOfGgufsWithoutTheBlock() {
        LinearLayer layer = new LinearLayer(3, "blk.3.ffn_down", "transformer.h.3.mlp.c_proj", RowOrder.SAME, true);

        assertThat(layer.isNamed("c_proj")).isTrue();
        assertThat(layer.isNamed("ffn_down")).isTrue();
        assertThat(layer.isNamed("mlp.c_proj")).isFalse();
        assertThat(layer.ends()).containsExactly("c_proj", "mlp.c_proj");
    }
}
