package dev.lorica.convert;

import static dev.lorica.internal.Status.check;

import dev.lorica.files.SafetensorsFile;
import dev.lorica.internal.NativeHandle;
import dev.lorica.internal.NativeLibrary;
import dev.lorica.internal.Text;
import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_gguf_writer;
import dev.lorica.internal.c.lorica_tensor_source;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.function.BiFunction;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.LongPointer;

/** A GGUF file in the making. Tensors go from file to file without passing through Java. */
final class GgufWriter implements AutoCloseable {
    private final NativeHandle<lorica_gguf_writer> handle;

    GgufWriter() {
        NativeLibrary.load();
        lorica_gguf_writer pointer = new lorica_gguf_writer();
        check(Lorica.lorica_gguf_writer_create(pointer));
        handle = new NativeHandle<>("the GGUF writer", pointer, Lorica::lorica_gguf_writer_free);
    }

    void set(String key, int value) {
        with(key, (writer, name) -> Lorica.lorica_gguf_writer_set_u32(writer, name, value));
    }

    void set(String key, float value) {
        with(key, (writer, name) -> Lorica.lorica_gguf_writer_set_f32(writer, name, value));
    }

    void set(String key, boolean value) {
        with(key, (writer, name) -> Lorica.lorica_gguf_writer_set_bool(writer, name, value));
    }

    void set(String key, String value) {
        try (BytePointer text = Text.copy(key, value)) {
            with(key, (writer, name) -> Lorica.lorica_gguf_writer_set_string(writer, name, text));
        }
    }

    void set(String key, int[] values) {
        with(key, (writer, name) -> Lorica.lorica_gguf_writer_set_i32s(writer, name, values, values.length));
    }

    void set(String key, float[] values) {
        with(key, (writer, name) -> Lorica.lorica_gguf_writer_set_f32s(writer, name, values, values.length));
    }

    void set(String key, List<String> values) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        long[] offsets = new long[values.size() + 1];
        for (int i = 0; i < values.size(); i++) {
            bytes.writeBytes(values.get(i).getBytes(StandardCharsets.UTF_8));
            offsets[i + 1] = bytes.size();
        }
        try (BytePointer all = new BytePointer(bytes.toByteArray());
                LongPointer ends = new LongPointer(offsets)) {
            with(key, (writer, name) -> Lorica.lorica_gguf_writer_set_strings(writer, name, all, ends, values.size()));
        }
    }

    /** @param ropeHeads heads whose rows change from Hugging Face's order to GGUF's; 0: none */
    void add(String name, String type, SafetensorsFile file, SafetensorsFile.Tensor tensor, int ropeHeads) {
        boolean matrix = tensor.shape().size() > 1;
        long rows = matrix ? tensor.shape().get(0) : 0;
        long columns = tensor.shape().get(matrix ? 1 : 0);
        try (BytePointer path = Text.copy("the path", file.path().toString());
                BytePointer from = Text.copy("the type", tensor.type());
                BytePointer to = Text.copy("the type", type);
                lorica_tensor_source source = new lorica_tensor_source()) {
            source.path(path).offset(tensor.offset()).type(from).n_rope_heads(ropeHeads);
            with(name, (writer, n) -> Lorica.lorica_gguf_writer_add_tensor(writer, n, to, rows, columns, source));
        }
    }

    void add(String name, float[] values) {
        with(name, (writer, n) -> Lorica.lorica_gguf_writer_add_vector(writer, n, values, values.length));
    }

    void write(Path file) {
        with(file.toString(), Lorica::lorica_gguf_writer_write);
    }

    @Override
    public void close() {
        handle.close();
    }

    private void with(String name, BiFunction<lorica_gguf_writer, BytePointer, Integer> call) {
        try (BytePointer text = Text.copy("the name", name)) {
            handle.exclusive(writer -> {
                check(call.apply(writer, text));
                return null;
            });
        }
    }
}
