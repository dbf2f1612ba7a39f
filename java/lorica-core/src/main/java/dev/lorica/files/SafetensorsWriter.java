package dev.lorica.files;

import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.internal.Arguments;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Supplier;

/** Writes a safetensors file of F32 tensors, of which the same tensors make the same bytes: under a temporary name, synced, renamed. */
public final class SafetensorsWriter {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final int ALIGNMENT = 8;
    private static final int PIECE = 1 << 16;

    /** A file without tensors and entries. */
    public SafetensorsWriter() {}

    private record Entry(String name, List<Long> shape, Supplier<float[]> values) {
        long bytes() {
            return shape.stream().reduce(4L, Math::multiplyExact);
        }
    }

    private final List<Entry> entries = new ArrayList<>();
    private final Map<String, String> metadata = new TreeMap<>();

    /**
     * An entry of the header's {@code __metadata__}.
     *
     * @param key   the name of the entry; one of the same name is replaced
     * @param value its text
     * @return this writer
     */
    public SafetensorsWriter metadata(String key, String value) {
        Arguments.given(key, "key");
        Arguments.given(value, "value");
        metadata.put(key, value);
        return this;
    }

    /**
     * A tensor whose values are asked for when it is written; tensors are written in the order of their names.
     *
     * @param name   its name in the file
     * @param shape  its dimensions, the one that goes fastest last
     * @param values its values, as many as the product of the shape
     * @return this writer
     */
    public SafetensorsWriter add(String name, List<Long> shape, Supplier<float[]> values) {
        Arguments.given(name, "name");
        Arguments.given(values, "values");
        entries.add(new Entry(name, Arguments.all(shape, "shape"), values));
        return this;
    }

    /**
     * Writes the file; one that was there stays as it was until this one is complete.
     *
     * @param file the file
     */
    public void write(Path file) {
        Arguments.given(file, "file");
        entries.sort(Comparator.comparing(Entry::name));
        AtomicFile.write(file, out -> {
            write(out, header());
            for (Entry entry : entries) {
                write(out, entry);
            }
        });
    }

    /** Length and JSON, padded with spaces so that the data begins aligned. */
    private ByteBuffer header() throws IOException {
        Map<String, Object> header = new LinkedHashMap<>();
        if (!metadata.isEmpty()) {
            header.put("__metadata__", metadata);
        }
        long offset = 0;
        for (Entry entry : entries) {
            long end = offset + entry.bytes();
            // Not Map.of, whose order is another in every JVM.
            Map<String, Object> tensor = new LinkedHashMap<>();
            tensor.put("dtype", "F32");
            tensor.put("shape", entry.shape());
            tensor.put("data_offsets", List.of(offset, end));
            header.put(entry.name(), tensor);
            offset = end;
        }
        byte[] json = JSON.writeValueAsBytes(header);
        int padded = (json.length + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        ByteBuffer buffer = ByteBuffer.allocate(8 + padded)
                .order(ByteOrder.LITTLE_ENDIAN)
                .putLong(padded)
                .put(json);
        while (buffer.hasRemaining()) {
            buffer.put((byte) ' ');
        }
        return buffer.flip();
    }

    private static void write(OutputStream out, Entry entry) throws IOException {
        float[] values = entry.values().get();
        if (4L * values.length != entry.bytes()) {
            throw new IllegalStateException(
                    entry.name() + " has " + values.length + " values, not those of its shape " + entry.shape());
        }
        ByteBuffer buffer = ByteBuffer.allocate(PIECE).order(ByteOrder.LITTLE_ENDIAN);
        for (int start = 0; start < values.length; start += PIECE / 4) {
            int count = Math.min(PIECE / 4, values.length - start);
            buffer.clear().asFloatBuffer().put(values, start, count);
            write(out, buffer.limit(4 * count));
        }
    }

    private static void write(OutputStream out, ByteBuffer buffer) throws IOException {
        out.write(buffer.array(), 0, buffer.limit());
    }
}
