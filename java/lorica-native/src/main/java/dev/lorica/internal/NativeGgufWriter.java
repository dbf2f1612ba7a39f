package dev.lorica.internal;

import static dev.lorica.internal.Status.check;

import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_gguf_writer;
import dev.lorica.internal.c.lorica_tensor_source;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.function.BiFunction;
import org.bytedeco.javacpp.BoolPointer;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.LongPointer;

/** A GGUF file in the making. Tensors go from file to file without passing through Java. */
public final class NativeGgufWriter implements AutoCloseable {
    final NativeHandle<lorica_gguf_writer> handle;

    public NativeGgufWriter() {
        NativeLibrary.load();
        lorica_gguf_writer pointer = new lorica_gguf_writer();
        check(Lorica.lorica_gguf_writer_create(pointer));
        handle = new NativeHandle<>("the GGUF writer", pointer, Lorica::lorica_gguf_writer_free);
    }

    /** Of the types that the methods below take; numbers that are not whole become floats. */
    public void set(String key, Object value) {
        if (value instanceof Integer number) {
            set(key, number.intValue());
        } else if (value instanceof Number number) {
            set(key, number.floatValue());
        } else if (value instanceof Boolean truth) {
            set(key, truth.booleanValue());
        } else if (value instanceof boolean[] truths) {
            set(key, truths);
        } else if (value instanceof String text) {
            set(key, text);
        } else {
            @SuppressWarnings("unchecked")
            List<String> texts = (List<String>) value;
            set(key, texts);
        }
    }

    public void set(String key, int value) {
        with(key, (writer, name) -> Lorica.lorica_gguf_writer_set_u32(writer, name, value));
    }

    public void set(String key, float value) {
        with(key, (writer, name) -> Lorica.lorica_gguf_writer_set_f32(writer, name, value));
    }

    public void set(String key, boolean value) {
        with(key, (writer, name) -> Lorica.lorica_gguf_writer_set_bool(writer, name, value));
    }

    public void set(String key, String value) {
        try (BytePointer text = Text.copy(key, value)) {
            with(key, (writer, name) -> Lorica.lorica_gguf_writer_set_string(writer, name, text));
        }
    }

    public void set(String key, boolean[] values) {
        try (BoolPointer copy = new BoolPointer(values.length)) {
            for (int i = 0; i < values.length; i++) {
                copy.put(i, values[i]);
            }
            with(key, (writer, name) -> Lorica.lorica_gguf_writer_set_bools(writer, name, copy, values.length));
        }
    }

    public void set(String key, int[] values) {
        with(key, (writer, name) -> Lorica.lorica_gguf_writer_set_i32s(writer, name, values, values.length));
    }

    public void set(String key, float[] values) {
        with(key, (writer, name) -> Lorica.lorica_gguf_writer_set_f32s(writer, name, values, values.length));
    }

    public void set(String key, List<String> values) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        long[] offsets = new long[values.size() + 1];
        for (int i = 0; i < values.size(); i++) {
            bytes.writeBytes(values.get(i).getBytes(StandardCharsets.UTF_8));
            offsets[i + 1] = bytes.size();
        }
        try (BytePointer all = Memory.of(bytes.toByteArray());
                LongPointer ends = Memory.of(offsets)) {
            with(key, (writer, name) -> Lorica.lorica_gguf_writer_set_strings(writer, name, all, ends, values.size()));
        }
    }

    /**
     * A tensor whose bytes are in another file.
     *
     * @param rows      0 for a vector
     * @param file      with the bytes, from {@code offset} on
     * @param from      their type
     * @param rowOrder   row {@code i} is row {@code rowOrder[i]} of the file; {@code null}: row {@code i}
     * @param transposed the file has the columns as rows
     */
    public void add(
            String name,
            String type,
            long rows,
            long columns,
            String file,
            long offset,
            String from,
            long[] rowOrder,
            boolean transposed) {
        try (BytePointer path = Text.copy("the path", file);
                BytePointer is = Text.copy("the type", from);
                BytePointer becomes = Text.copy("the type", type);
                LongPointer order = rowOrder == null ? new LongPointer() : Memory.of(rowOrder);
                lorica_tensor_source source =
                        Structs.sized(lorica_tensor_source::new, lorica_tensor_source::struct_size)) {
            source.path(path).offset(offset).type(is).row_order(order).transposed(transposed);
            with(name, (writer, n) -> Lorica.lorica_gguf_writer_add_tensor(writer, n, becomes, rows, columns, source));
        }
    }

    public void add(String name, float[] values) {
        with(name, (writer, n) -> Lorica.lorica_gguf_writer_add_vector(writer, n, values, values.length));
    }

    public void write(String file) {
        with(file, Lorica::lorica_gguf_writer_write);
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
