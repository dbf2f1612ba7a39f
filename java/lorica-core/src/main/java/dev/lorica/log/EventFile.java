package dev.lorica.log;

import java.io.Closeable;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.function.BiPredicate;
import java.util.zip.CRC32C;

/**
 * A TensorBoard event file: records of a length, its checksum, an {@code Event} in protocol buffers' wire format, and its
 * checksum. Of the message only what scalars need is known here: {@code Event {1 wall_time, 2 step, 3 file_version, 5 summary}},
 * {@code Summary {1 value}}, {@code Value {1 tag, 2 simple_value}}.
 */
final class EventFile implements Closeable {
    private static final String VERSION = "brain.Event:2";
    private static final int HEADER = 12;
    private static final int FOOTER = 4;
    private static final int LARGEST_EVENT = 1 << 20;

    private static final int VARINT = 0;
    private static final int FIXED64 = 1;
    private static final int BYTES = 2;
    private static final int FIXED32 = 5;

    /** Not a channel, which an interrupt of the thread would close. */
    private final RandomAccessFile file;

    private EventFile(RandomAccessFile file) {
        this.file = file;
    }

    static EventFile create(Path file, double wallTime) throws IOException {
        Files.createFile(file);
        EventFile events = new EventFile(new RandomAccessFile(file.toFile(), "rw"));
        events.write(buffer(32)
                .put(tag(1, FIXED64))
                .putDouble(wallTime)
                .put(tag(3, BYTES))
                .put((byte) VERSION.length())
                .put(VERSION.getBytes(StandardCharsets.US_ASCII)));
        return events;
    }

    /** Goes on with a file, from the first scalar that is not to be kept, or the first record that is not whole. */
    static EventFile resume(Path file, BiPredicate<Long, String> keep) throws IOException {
        long end = end(ByteBuffer.wrap(Files.readAllBytes(file)).order(ByteOrder.LITTLE_ENDIAN), keep);
        RandomAccessFile open = new RandomAccessFile(file.toFile(), "rw");
        open.setLength(end);
        open.seek(end);
        return new EventFile(open);
    }

    void scalar(double wallTime, long step, String name, float value) throws IOException {
        byte[] text = name.getBytes(StandardCharsets.UTF_8);
        ByteBuffer scalar = buffer(text.length + 16).put(tag(1, BYTES));
        varint(scalar, text.length)
                .put(text)
                .put(tag(2, FIXED32))
                .putFloat(value)
                .flip();
        ByteBuffer summary = buffer(scalar.remaining() + 16).put(tag(1, BYTES));
        varint(summary, scalar.remaining()).put(scalar).flip();
        ByteBuffer event = buffer(summary.remaining() + 48)
                .put(tag(1, FIXED64))
                .putDouble(wallTime)
                .put(tag(2, VARINT));
        varint(event, step).put(tag(5, BYTES));
        write(varint(event, summary.remaining()).put(summary));
    }

    void force() throws IOException {
        file.getFD().sync();
    }

    @Override
    public void close() throws IOException {
        file.close();
    }

    private void write(ByteBuffer event) throws IOException {
        event.flip();
        byte[] data = new byte[event.remaining()];
        event.get(data);
        ByteBuffer record = buffer(HEADER + data.length + FOOTER).putLong(data.length);
        record.putInt(maskedChecksum(record.array(), 0, 8)).put(data).putInt(maskedChecksum(data, 0, data.length));
        file.write(record.array());
    }

    private static long end(ByteBuffer bytes, BiPredicate<Long, String> keep) {
        int at = 0;
        while (bytes.limit() - at >= HEADER + FOOTER) {
            long length = bytes.getLong(at);
            if (bytes.getInt(at + 8) != maskedChecksum(bytes.array(), at, 8)
                    || length < 0
                    || length > LARGEST_EVENT
                    || length > bytes.limit() - at - HEADER - FOOTER) {
                break;
            }
            int size = (int) length;
            if (bytes.getInt(at + HEADER + size) != maskedChecksum(bytes.array(), at + HEADER, size)) {
                break;
            }
            Scalar scalar = Scalar.of(bytes.slice(at + HEADER, size).order(ByteOrder.LITTLE_ENDIAN));
            if (scalar.name != null && !keep.test(scalar.step, scalar.name)) {
                break;
            }
            at += HEADER + size + FOOTER;
        }
        return at;
    }

    /** What {@link #scalar} wrote, as far as it is needed to recognise it. */
    private static final class Scalar {
        private long step;
        private String name;

        static Scalar of(ByteBuffer event) {
            Scalar scalar = new Scalar();
            scalar.read(event, 0);
            return scalar;
        }

        /** @param depth 0: an Event, 1: its Summary, 2: a Value of that */
        private void read(ByteBuffer message, int depth) {
            while (message.hasRemaining()) {
                int tag = (int) varint(message);
                int field = tag >>> 3;
                switch (tag & 7) {
                    case VARINT -> {
                        long value = varint(message);
                        step = depth == 0 && field == 2 ? value : step;
                    }
                    case FIXED64 -> message.position(message.position() + 8);
                    case FIXED32 -> message.position(message.position() + 4);
                    case BYTES -> {
                        int size = (int) varint(message);
                        ByteBuffer part =
                                message.slice(message.position(), size).order(ByteOrder.LITTLE_ENDIAN);
                        message.position(message.position() + size);
                        if (depth == 0 && field == 5 || depth == 1 && field == 1) {
                            read(part, depth + 1);
                        } else if (depth == 2 && field == 1) {
                            name = StandardCharsets.UTF_8.decode(part).toString();
                        }
                    }
                    default -> throw new IllegalArgumentException("wire type " + (tag & 7));
                }
            }
        }

        private static long varint(ByteBuffer from) {
            long value = 0;
            for (int shift = 0; ; shift += 7) {
                byte next = from.get();
                value |= (long) (next & 0x7f) << shift;
                if (next >= 0) {
                    return value;
                }
            }
        }
    }

    private static ByteBuffer buffer(int size) {
        return ByteBuffer.allocate(size).order(ByteOrder.LITTLE_ENDIAN);
    }

    private static byte tag(int field, int wireType) {
        return (byte) (field << 3 | wireType);
    }

    private static ByteBuffer varint(ByteBuffer to, long value) {
        for (; (value & ~0x7fL) != 0; value >>>= 7) {
            to.put((byte) (value & 0x7f | 0x80));
        }
        return to.put((byte) value);
    }

    /** CRC-32C, rotated and offset, as TFRecord files have it. */
    static int maskedChecksum(byte[] bytes, int from, int length) {
        CRC32C crc = new CRC32C();
        crc.update(bytes, from, length);
        return Integer.rotateRight((int) crc.getValue(), 15) + 0xa282ead8;
    }
}
