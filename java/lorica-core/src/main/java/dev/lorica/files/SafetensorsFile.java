package dev.lorica.files;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.core.StreamReadFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.internal.Arguments;
import java.io.CharConversionException;
import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A safetensors file, opened: u64 length of the header, the header in JSON, the tensors' bytes. The header is held against the
 * size of the file before anything is allocated: every tensor lies inside, none overlaps another, and no byte is left over.
 */
public final class SafetensorsFile implements AutoCloseable {
    private static final JsonMapper JSON = JsonMapper.builder()
            .enable(StreamReadFeature.STRICT_DUPLICATE_DETECTION)
            .build();
    /** The format's own limit. */
    private static final long MAX_HEADER = 100_000_000;

    private static final int MAX_DIMENSIONS = 8;
    private static final Map<String, Integer> BYTES = Map.ofEntries(
            Map.entry("F64", 8),
            Map.entry("F32", 4),
            Map.entry("F16", 2),
            Map.entry("BF16", 2),
            Map.entry("F8_E4M3", 1),
            Map.entry("F8_E5M2", 1),
            Map.entry("I64", 8),
            Map.entry("I32", 4),
            Map.entry("I16", 2),
            Map.entry("I8", 1),
            Map.entry("U64", 8),
            Map.entry("U32", 4),
            Map.entry("U16", 2),
            Map.entry("U8", 1),
            Map.entry("BOOL", 1));

    private final Path path;
    private final FileChannel channel;
    private final Map<String, Tensor> tensors;
    private final Map<String, String> metadata;

    /**
     * A tensor of the file.
     *
     * @param name   its name
     * @param type   {@code F32}, {@code F16}, {@code BF16} and others, which {@link #read} refuses
     * @param shape  row-major, the slowest dimension first
     * @param offset bytes from the start of the file
     * @param bytes  bytes that it takes
     */
    public record Tensor(String name, String type, List<Long> shape, long offset, long bytes) {
        /** {@return the number of values: the product of the shape} */
        public long elements() {
            return bytes / BYTES.get(type);
        }
    }

    private SafetensorsFile(Path path, FileChannel channel, Map<String, Tensor> tensors, Map<String, String> metadata) {
        this.path = path;
        this.channel = channel;
        this.tensors = tensors;
        this.metadata = metadata;
    }

    /**
     * Opens and checks a file.
     *
     * @param path the file
     * @return the open file, which the caller closes
     * @throws dev.lorica.exceptions.LoricaException naming what is damaged
     */
    public static SafetensorsFile open(Path path) {
        Arguments.given(path, "path");
        FileChannel channel;
        try {
            channel = FileChannel.open(path, StandardOpenOption.READ);
        } catch (NoSuchFileException e) {
            throw new FileAccessException(path + " does not exist", e);
        } catch (IOException e) {
            throw unreadable(path, e);
        }
        try {
            return read(path, channel);
        } catch (IOException e) {
            closeQuietly(channel);
            throw unreadable(path, e);
        } catch (RuntimeException e) {
            closeQuietly(channel);
            throw e;
        }
    }

    private static SafetensorsFile read(Path path, FileChannel channel) throws IOException {
        long size = channel.size();
        if (size < 8) {
            throw damaged(path, "it has " + size + " bytes; is it complete?");
        }
        long headerBytes = fill(channel, 0, 8).getLong();
        if (headerBytes < 2 || headerBytes > MAX_HEADER || headerBytes > size - 8) {
            throw damaged(
                    path,
                    "its header is said to have " + Long.toUnsignedString(headerBytes) + " bytes, the file has " + size
                            + "; is it complete, and a safetensors file?");
        }
        JsonNode header;
        try {
            header = JSON.readTree(fill(channel, 8, (int) headerBytes).array());
        } catch (JacksonException e) {
            throw damaged(
                    path,
                    "its header is not JSON: "
                            + e.getOriginalMessage().lines().findFirst().orElse(""));
        } catch (CharConversionException e) {
            throw damaged(path, "its header is not UTF-8");
        }
        if (!header.isObject()) {
            throw damaged(path, "its header is not a JSON object");
        }
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        Map<String, String> metadata = new LinkedHashMap<>();
        header.fields().forEachRemaining(entry -> {
            if (entry.getKey().equals("__metadata__")) {
                entry.getValue()
                        .fields()
                        .forEachRemaining(fact ->
                                metadata.put(fact.getKey(), fact.getValue().asText()));
            } else {
                tensors.put(entry.getKey(), tensor(path, entry.getKey(), entry.getValue(), 8 + headerBytes, size));
            }
        });
        checkCover(path, tensors.values(), 8 + headerBytes, size);
        return new SafetensorsFile(
                path, channel, Collections.unmodifiableMap(tensors), Collections.unmodifiableMap(metadata));
    }

    private static Tensor tensor(Path path, String name, JsonNode told, long dataStart, long size) {
        JsonNode type = told.path("dtype");
        Integer elementBytes = type.isTextual() ? BYTES.get(type.asText()) : null;
        if (elementBytes == null) {
            throw damaged(path, "tensor \"" + name + "\" has the dtype " + type + ", which is unknown");
        }
        JsonNode dimensions = told.path("shape");
        if (!dimensions.isArray() || dimensions.size() > MAX_DIMENSIONS) {
            throw damaged(path, "tensor \"" + name + "\" has no shape of at most " + MAX_DIMENSIONS + " dimensions");
        }
        List<Long> shape = new ArrayList<>();
        long bytes = elementBytes;
        try {
            for (JsonNode dimension : dimensions) {
                if (!isWhole(dimension) || dimension.asLong() < 0) {
                    throw damaged(path, "tensor \"" + name + "\" has the dimension " + dimension);
                }
                shape.add(dimension.asLong());
                bytes = Math.multiplyExact(bytes, dimension.asLong());
            }
        } catch (ArithmeticException e) {
            throw damaged(path, "tensor \"" + name + "\" has the shape " + dimensions + ", which is too large");
        }
        JsonNode offsets = told.path("data_offsets");
        if (offsets.size() != 2 || !isWhole(offsets.path(0)) || !isWhole(offsets.path(1))) {
            throw damaged(path, "tensor \"" + name + "\" has no data_offsets [begin, end]");
        }
        long begin = offsets.get(0).asLong();
        long end = offsets.get(1).asLong();
        if (begin < 0 || end < begin || end > size - dataStart) {
            throw damaged(
                    path,
                    "tensor \"" + name + "\" lies at " + begin + " to " + end + " of " + (size - dataStart)
                            + " bytes of tensor data; is the file complete?");
        }
        if (end - begin != bytes) {
            throw damaged(
                    path,
                    "tensor \"" + name + "\" takes " + (end - begin) + " bytes, its shape " + shape + " in "
                            + type.asText() + " needs " + bytes);
        }
        return new Tensor(name, type.asText(), List.copyOf(shape), dataStart + begin, bytes);
    }

    /** 8, not 8.0, let alone 8.5. */
    private static boolean isWhole(JsonNode number) {
        return number.isIntegralNumber() && number.canConvertToLong();
    }

    private static void checkCover(Path path, Collection<Tensor> tensors, long start, long size) {
        List<Tensor> byOffset = new ArrayList<>(tensors);
        byOffset.sort(Comparator.comparingLong(Tensor::offset).thenComparingLong(Tensor::bytes));
        long end = start;
        for (Tensor tensor : byOffset) {
            if (tensor.offset() != end) {
                throw damaged(
                        path,
                        "tensor \"" + tensor.name() + "\" "
                                + (tensor.offset() < end ? "overlaps the one before it" : "leaves a gap before it"));
            }
            end += tensor.bytes();
        }
        if (end != size) {
            throw damaged(path, "the last " + (size - end) + " bytes belong to no tensor");
        }
    }

    /** {@return the file} */
    public Path path() {
        return path;
    }

    /** {@return the tensors by name, in the header's order} */
    public Map<String, Tensor> tensors() {
        return tensors;
    }

    /** {@return the header's {@code __metadata__}} */
    public Map<String, String> metadata() {
        return metadata;
    }

    /**
     * {@return the values of a tensor of type F32, F16 or BF16, as F32 in the order of the file: the last dimension goes fastest}
     *
     * @param tensor one of {@link #tensors}
     */
    public float[] read(Tensor tensor) {
        Arguments.given(tensor, "tensor");
        if (!List.of("F32", "F16", "BF16").contains(tensor.type())) {
            throw new UnsupportedException(path + ": tensor \"" + tensor.name() + "\" is of type " + tensor.type()
                    + "; F32, F16 and BF16 can be read");
        }
        if (tensor.bytes() > Integer.MAX_VALUE - 8) {
            throw new UnsupportedException(path + ": tensor \"" + tensor.name() + "\" has " + tensor.bytes()
                    + " bytes, too many to be read at once");
        }
        try {
            ByteBuffer bytes = fill(channel, tensor.offset(), (int) tensor.bytes());
            float[] values = new float[(int) tensor.elements()];
            switch (tensor.type()) {
                case "F32" -> bytes.asFloatBuffer().get(values);
                case "F16" -> {
                    for (int i = 0; i < values.length; i++) {
                        values[i] = float16(bytes.getShort(2 * i));
                    }
                }
                default -> {
                    for (int i = 0; i < values.length; i++) {
                        values[i] = Float.intBitsToFloat(bytes.getShort(2 * i) << 16);
                    }
                }
            }
            return values;
        } catch (IOException e) {
            throw unreadable(path, e);
        }
    }

    /** IEEE 754 binary16; {@code Float.float16ToFloat} came with Java 20. */
    static float float16(short bits) {
        int exponent = bits >> 10 & 0x1f;
        int fraction = bits & 0x3ff;
        float magnitude;
        if (exponent == 0) {
            magnitude = fraction * 0x1p-24f;
        } else if (exponent == 31) {
            magnitude = fraction == 0 ? Float.POSITIVE_INFINITY : Float.NaN;
        } else {
            magnitude = Float.intBitsToFloat(exponent + 112 << 23 | fraction << 13);
        }
        return bits < 0 ? -magnitude : magnitude;
    }

    @Override
    public void close() {
        closeQuietly(channel);
    }

    private static ByteBuffer fill(FileChannel channel, long offset, int bytes) throws IOException {
        ByteBuffer buffer = ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
        while (buffer.hasRemaining()) {
            if (channel.read(buffer, offset + buffer.position()) < 0) {
                throw new EOFException("it became shorter while it was read");
            }
        }
        return buffer.flip();
    }

    private static FileFormatException damaged(Path path, String how) {
        return new FileFormatException(path + ": damaged safetensors file: " + how.replaceAll("\\p{Cntrl}", " "));
    }

    private static FileAccessException unreadable(Path path, IOException e) {
        return new FileAccessException(path + " cannot be read: " + e.getMessage(), e);
    }

    private static void closeQuietly(FileChannel channel) {
        try {
            channel.close();
        } catch (IOException e) {
            // It was only read.
        }
    }
}
