package dev.lorica.internal;

import static dev.lorica.internal.Status.check;

import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_gguf;
import dev.lorica.internal.c.lorica_gguf_tensor;
import dev.lorica.internal.c.lorica_write_params;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.PointerPointer;

/** An open GGUF file, as the native library holds it. */
public final class NativeGguf implements AutoCloseable {
    private final NativeHandle<lorica_gguf> handle;

    public NativeGguf(String file) {
        NativeLibrary.load();
        lorica_gguf pointer = new lorica_gguf();
        try (BytePointer path = Text.copy("the path", file)) {
            check(Lorica.lorica_gguf_open(path, pointer));
        }
        handle = new NativeHandle<>("the GGUF file", pointer, Lorica::lorica_gguf_free);
    }

    /** Writes a model in another type. */
    public static void quantize(String input, String output, String type, int threads) {
        NativeLibrary.load();
        try (BytePointer source = Text.copy("the path", input);
                BytePointer target = Text.copy("the path", output);
                BytePointer name = Text.copy("the type", type);
                lorica_write_params params = Structs.defaults(
                        lorica_write_params::new,
                        lorica_write_params::struct_size,
                        Lorica::lorica_write_default_params)) {
            params.type(name).n_threads(threads);
            check(Lorica.lorica_quantize(source, target, params));
        }
    }

    /** Writes a model with more tokens in its vocabulary. */
    public static void addTokens(String input, String output, List<String> tokens) {
        NativeLibrary.load();
        List<BytePointer> texts = new ArrayList<>();
        try (BytePointer source = Text.copy("the path", input);
                BytePointer target = Text.copy("the path", output);
                PointerPointer<BytePointer> pointers = Memory.pointers(Math.max(1, tokens.size()))) {
            tokens.forEach(token -> texts.add(Text.copy("a token", token)));
            for (int i = 0; i < texts.size(); i++) {
                pointers.put(i, texts.get(i));
            }
            check(Lorica.lorica_add_tokens(source, pointers, texts.size(), target));
        } finally {
            texts.forEach(BytePointer::close);
        }
    }

    public long bytes() {
        return handle.exclusive(Lorica::lorica_gguf_n_bytes);
    }

    /** @param maxArray elements that are given of an array, −1 for all */
    public Map<String, String> metadata(long maxArray) {
        return handle.exclusive(gguf -> {
            Map<String, String> metadata = new LinkedHashMap<>();
            for (long i = 0; i < Lorica.lorica_gguf_n_kv(gguf); i++) {
                metadata.put(
                        Text.of(Lorica.lorica_gguf_key(gguf, i)),
                        Text.of(Lorica.lorica_gguf_value_json(gguf, i, maxArray)));
            }
            return metadata;
        });
    }

    public Map<String, Long> arrayLengths() {
        return handle.exclusive(gguf -> {
            Map<String, Long> lengths = new LinkedHashMap<>();
            for (long i = 0; i < Lorica.lorica_gguf_n_kv(gguf); i++) {
                long length = Lorica.lorica_gguf_array_length(gguf, i);
                if (length >= 0) {
                    lengths.put(Text.of(Lorica.lorica_gguf_key(gguf, i)), length);
                }
            }
            return lengths;
        });
    }

    /** What becomes of the description of a tensor. */
    public interface Tensor<R> {
        R of(String name, String type, List<Long> shape, long offset, long bytes);
    }

    public <R> List<R> tensors(Tensor<R> tensor) {
        return handle.exclusive(gguf -> {
            List<R> tensors = new ArrayList<>();
            try (lorica_gguf_tensor t = Structs.sized(lorica_gguf_tensor::new, lorica_gguf_tensor::struct_size)) {
                for (long i = 0; i < Lorica.lorica_gguf_n_tensors(gguf); i++) {
                    check(Lorica.lorica_gguf_tensor_info(gguf, i, t));
                    List<Long> shape = new ArrayList<>();
                    for (int d = 0; d < t.n_dims(); d++) {
                        shape.add(t.ne(d));
                    }
                    tensors.add(tensor.of(
                            Text.of(t.name()), Text.of(t.type()), List.copyOf(shape), t.offset(), t.n_bytes()));
                }
            }
            return tensors;
        });
    }

    @Override
    public void close() {
        handle.close();
    }
}
