package dev.lorica.generate;

import static org.assertj.core.api.Assertions.assertThat;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import java.util.Arrays;
import java.util.Random;
import org.junit.jupiter.api.Test;

class KvCacheTest {
    /** Layers with a window forget what left it; a text that is cut there is computed anew, with the same logits. */
    @Test
    void saysThatNothingIsLeftWhereAWindowHasForgotten() {
        try (Model model = Model.load(
                        TestModels.repository("native/tests/data/model_goldens/gemma3/model.gguf"),
                        new ModelConfig("cpu", Precision.F32, 1));
                KvCache cache = new KvCache(model, 1200)) {
            int vocabulary = model.info().vocabSize();
            int[] text = new Random(1).ints(1100, 1, vocabulary).toArray();
            float[] logits = new float[vocabulary];
            cache.append(text, logits);

            assertThat(cache.truncate(1099)).isEqualTo(1099);
            assertThat(cache.commonPrefix(text)).isEqualTo(1099);
            assertThat(cache.truncate(10)).isZero();
            assertThat(cache.length()).isZero();
            assertThat(cache.commonPrefix(text)).isZero();

            float[] again = new float[vocabulary];
            cache.append(text, again);
            assertThat(again).isEqualTo(logits);

            cache.truncate(0);
            cache.append(Arrays.copyOf(text, 200), again);
            assertThat(cache.truncate(10)).isEqualTo(10);
        }
    }
}
