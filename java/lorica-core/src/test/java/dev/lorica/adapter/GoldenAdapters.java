package dev.lorica.adapter;

import static org.assertj.core.api.Assertions.assertThat;

import dev.lorica.Model;
import java.nio.file.Path;

/** What tests of adapters on the small models of the goldens share. */
final class GoldenAdapters {
    private static final Path GOLDENS = Path.of("../../native/tests/data/model_goldens");

    private GoldenAdapters() {}

    static Model model(String family) {
        return Model.load(GOLDENS.resolve(family).resolve("model.gguf"));
    }

    /** As after training. */
    static void move(Adapter adapter) {
        for (int i = 0; i < adapter.tensors().size(); i++) {
            float[] values = adapter.values(i);
            for (int j = 0; j < values.length; j++) {
                values[j] += (j % 7 - 3) / 16f + i / 64f;
            }
            adapter.setValues(i, values);
        }
    }

    static void assertSame(Adapter actual, Adapter expected) {
        assertThat(actual.tensors()).isEqualTo(expected.tensors());
        for (int i = 0; i < expected.tensors().size(); i++) {
            assertThat(actual.values(i)).isEqualTo(expected.values(i));
        }
    }
}
