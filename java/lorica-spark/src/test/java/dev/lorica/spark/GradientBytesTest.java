package dev.lorica.spark;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.exceptions.FileFormatException;
import dev.lorica.train.GradientSums;
import dev.lorica.train.Gradients;
import dev.lorica.train.Metrics;
import java.util.Arrays;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;

class GradientBytesTest {
    private static float[] gradients(GradientFormat format) {
        Random random = new Random(7);
        float[] values = new float[10_001];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) (random.nextGaussian() * 1e-4);
        }
        values[3] = Float.NaN;
        values[4] = Float.NEGATIVE_INFINITY;
        values[5] = -0f;
        values[6] = Float.MIN_VALUE;
        return Engine.rounded(new Gradients(values, new GradientSums(0, 0, 0, 0, new Metrics(Map.of()))), format)
                .values();
    }

    @Test
    void whatComesOutIsWhatWentIn() {
        for (GradientFormat format : GradientFormat.values()) {
            for (boolean compressed : new boolean[] {false, true}) {
                float[] values = gradients(format);

                byte[] bytes = GradientBytes.encode(values, format, compressed);

                float[] decoded = GradientBytes.decode(bytes, format);
                for (int i = 0; i < values.length; i++) {
                    assertThat(Float.floatToRawIntBits(decoded[i])).isEqualTo(Float.floatToRawIntBits(values[i]));
                }
                int asTheyAre = 8 + format.bytes * values.length;
                if (compressed) {
                    assertThat(bytes.length).isLessThan(asTheyAre - values.length / 2);
                } else {
                    assertThat(bytes).hasSize(asTheyAre);
                }
            }
        }
    }

    @Test
    void plainNumbersComeBack() {
        float[] values = gradients(GradientFormat.F32);
        assertThat(GradientBytes.ofPlain(GradientBytes.plain(values))).containsExactly(values);
    }

    @Test
    void whatIsDamagedIsRefused() {
        byte[] bytes = GradientBytes.encode(gradients(GradientFormat.F32), GradientFormat.F32, true);
        assertThatThrownBy(() -> GradientBytes.decode(Arrays.copyOf(bytes, bytes.length - 1), GradientFormat.F32))
                .isInstanceOf(FileFormatException.class);
        bytes[9] ^= 0x55;
        assertThatThrownBy(() -> GradientBytes.decode(bytes, GradientFormat.F32))
                .isInstanceOf(FileFormatException.class);
    }
}
