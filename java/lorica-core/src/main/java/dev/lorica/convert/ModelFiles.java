package dev.lorica.convert;

import static dev.lorica.internal.Status.check;

import dev.lorica.adapter.Adapter;
import dev.lorica.eval.Evaluator;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.hub.Hub;
import dev.lorica.internal.NativeLibrary;
import dev.lorica.internal.Text;
import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_export_params;
import java.nio.file.Path;
import org.bytedeco.javacpp.BytePointer;

/**
 * Writes model files from model files. Tensors are streamed: memory does not grow with the model.
 *
 * <p>A type is one of ggml's ({@code F32}, {@code F16}, {@code BF16}, {@code Q8_0}, {@code IQ4_NL}, …) or a mix of llama.cpp's
 * ({@code Q4_K_M}, {@code Q5_K_M}, …), which gives some tensors more bits.
 */
public final class ModelFiles {
    private ModelFiles() {}

    /**
     * Writes a GGUF model with the adapter folded in, so that any program can run it.
     *
     * @param type of the matrices; {@code null}: as in the base, what the adapter changes in F16. Four bits can lose what was
     *             learned: compare with {@link Evaluator}.
     */
    public static void merge(Adapter adapter, Path output, String type) {
        requireAnother(adapter.model().file(), output);
        try (BytePointer path = Text.copy("the path", output.toString());
                BytePointer name = type == null ? null : Text.copy("the type", type);
                lorica_export_params params = Lorica.lorica_export_default_params()) {
            params.type(name);
            check(adapter.model().handle().shared(m -> adapter.handle()
                    .shared(a -> Lorica.lorica_merge(m, a, path, params))));
        }
    }

    /**
     * Writes a GGUF model of any architecture in another type.
     *
     * @param threads 0: all cores; does not change the result
     */
    public static void quantize(Path input, Path output, String type, int threads) {
        Path model = Hub.model(input);
        requireAnother(model, output);
        NativeLibrary.load();
        try (BytePointer source = Text.copy("the path", model.toString());
                BytePointer target = Text.copy("the path", output.toString());
                BytePointer name = Text.copy("the type", type);
                lorica_export_params params = Lorica.lorica_export_default_params()) {
            params.type(name).n_threads(threads);
            check(Lorica.lorica_quantize(source, target, params));
        }
    }

    private static void requireAnother(Path input, Path output) {
        if (input.toAbsolutePath().normalize().equals(output.toAbsolutePath().normalize())) {
            throw new InvalidArgumentException(output + " is the model itself; choose another name for the new file");
        }
    }
}
