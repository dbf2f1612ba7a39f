package dev.lorica.files;

import static dev.lorica.internal.Status.check;

import dev.lorica.hub.Hub;
import dev.lorica.internal.NativeHandle;
import dev.lorica.internal.NativeLibrary;
import dev.lorica.internal.Text;
import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_gguf;
import dev.lorica.internal.c.lorica_gguf_tensor;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.bytedeco.javacpp.BytePointer;

/** What is inside a GGUF file (model, adapter, vocabulary), without loading it. */
public final class GgufFile implements AutoCloseable {
    private final NativeHandle<lorica_gguf> handle;

    /**
     * A tensor of the file.
     *
     * @param name   its name
     * @param type   ggml's name of its type: {@code Q4_0}
     * @param shape  in ggml's order: the contiguous dimension first
     * @param offset bytes from the start of the file that it lies in
     * @param bytes  bytes that it takes
     */
    public record Tensor(String name, String type, List<Long> shape, long offset, long bytes) {
        public long elements() {
            return shape.stream().reduce(1L, Math::multiplyExact);
        }
    }

    private GgufFile(NativeHandle<lorica_gguf> handle) {
        this.handle = handle;
    }

    /**
     * Opens and checks a GGUF file. Of a model in several files ({@code NAME-00001-of-00003.gguf}) the first is given, and the others are
     * found beside it.
     */
    public static GgufFile open(Path file) {
        NativeLibrary.load();
        lorica_gguf pointer = new lorica_gguf();
        try (BytePointer path = Text.copy("the path", Hub.model(file).toString())) {
            check(Lorica.lorica_gguf_open(path, pointer));
        }
        return new GgufFile(new NativeHandle<>("the GGUF file", pointer, Lorica::lorica_gguf_free));
    }

    /** Its size in bytes, of all files of a model in several. */
    public long bytes() {
        return handle.exclusive(Lorica::lorica_gguf_n_bytes);
    }

    /**
     * The metadata in the file's order, each value as JSON text.
     *
     * @param maxArray elements that are given of an array, −1 for all
     */
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

    /** Lengths of the metadata entries that are arrays. */
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

    /** The tensors in the file's order. */
    public List<Tensor> tensors() {
        return handle.exclusive(gguf -> {
            List<Tensor> tensors = new ArrayList<>();
            try (lorica_gguf_tensor tensor = new lorica_gguf_tensor()) {
                for (long i = 0; i < Lorica.lorica_gguf_n_tensors(gguf); i++) {
                    check(Lorica.lorica_gguf_tensor_info(gguf, i, tensor));
                    List<Long> shape = new ArrayList<>();
                    for (int d = 0; d < tensor.n_dims(); d++) {
                        shape.add(tensor.ne(d));
                    }
                    tensors.add(new Tensor(
                            Text.of(tensor.name()),
                            Text.of(tensor.type()),
                            List.copyOf(shape),
                            tensor.offset(),
                            tensor.n_bytes()));
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
