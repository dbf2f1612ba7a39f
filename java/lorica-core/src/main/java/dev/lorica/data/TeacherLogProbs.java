package dev.lorica.data;

import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.files.AtomicFile;
import dev.lorica.internal.Arguments;
import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.zip.CRC32C;
import java.util.zip.CheckedInputStream;
import java.util.zip.CheckedOutputStream;

/**
 * What a teacher says of a data set, in a file: at each position that is learned the tokens that it finds likeliest, and log p of
 * each, 8 bytes for both. It is read as it is needed, and holds the file open.
 */
public final class TeacherLogProbs implements AutoCloseable {
    private static final long MAGIC = 0x4c4f524943415450L;
    private static final int VERSION = 1;
    private static final int BUFFER = 1 << 18;
    private static final int ENTRY = Integer.BYTES + Float.BYTES;

    /**
     * What it is about.
     *
     * @param fingerprint of the teacher, the data, and how it was asked: with any other of them it is another
     * @param teacher     for people: which, and how it was asked
     * @param topK        tokens of each position
     * @param whole       whether these are the whole vocabulary
     * @param temperature by which logits were divided
     */
    public record Header(String fingerprint, String teacher, int topK, boolean whole, double temperature) {
        /** Checks that there are a fingerprint and a teacher. */
        public Header {
            Arguments.given(fingerprint, "fingerprint");
            Arguments.given(teacher, "teacher");
        }
    }

    private final Path path;
    private final Header header;
    private final RandomAccessFile file;
    private final long begin;
    /** Of each example, in positions. */
    private final long[] begins;

    private TeacherLogProbs(Path path, Header header, RandomAccessFile file, long begin, long[] begins) {
        this.path = path;
        this.header = header;
        this.file = file;
        this.begin = begin;
        this.begins = begins;
    }

    /** Takes positions one after another. */
    public interface Sink {
        /**
         * Takes the next position.
         *
         * @param ids      tokens, ascending from {@code from} on
         * @param logProbs log p of each
         * @param from     where in both arrays the topK of this position begin
         * @throws IOException if they cannot be kept
         */
        void position(int[] ids, float[] logProbs, int from) throws IOException;
    }

    /** Gives all positions of all examples, in their order. */
    public interface Source {
        /**
         * Gives each position once.
         *
         * @param sink takes them
         * @throws IOException if they cannot be kept
         */
        void giveTo(Sink sink) throws IOException;
    }

    /**
     * Writes such a file, as a whole or not at all.
     *
     * @param path      of the file
     * @param header    what it is about
     * @param positions that are learned, of each example
     * @param source    gives them all
     */
    public static void write(Path path, Header header, int[] positions, Source source) {
        Arguments.given(path, "path");
        Arguments.given(header, "header");
        Arguments.given(positions, "positions");
        Arguments.given(source, "source");
        AtomicFile.write(path, stream -> {
            CRC32C sum = new CRC32C();
            DataOutputStream out =
                    new DataOutputStream(new BufferedOutputStream(new CheckedOutputStream(stream, sum), BUFFER));
            out.writeLong(MAGIC);
            out.writeInt(VERSION);
            out.writeUTF(header.fingerprint());
            out.writeUTF(header.teacher());
            out.writeInt(header.topK());
            out.writeBoolean(header.whole());
            out.writeDouble(header.temperature());
            out.writeInt(positions.length);
            long expected = 0;
            for (int n : positions) {
                out.writeInt(n);
                expected += n;
            }
            ByteBuffer entries = ByteBuffer.allocate(header.topK() * ENTRY);
            long[] given = {0};
            source.giveTo((ids, logProbs, from) -> {
                entries.clear();
                for (int k = from; k < from + header.topK(); k++) {
                    entries.putInt(ids[k]).putFloat(logProbs[k]);
                }
                out.write(entries.array());
                given[0]++;
            });
            if (given[0] != expected) {
                throw new IllegalStateException(given[0] + " positions, where " + expected + " were announced");
            }
            out.flush();
            long value = sum.getValue();
            out.writeLong(value);
            out.flush();
        });
    }

    /**
     * {@return what a file has, to be closed}
     *
     * @param path of the file
     * @throws FileFormatException if it is damaged, cut or something else
     */
    public static TeacherLogProbs open(Path path) {
        Arguments.given(path, "path");
        CRC32C sum = new CRC32C();
        try (InputStream raw = new FileInputStream(path.toFile())) {
            DataInputStream in = new DataInputStream(new CheckedInputStream(new BufferedInputStream(raw, BUFFER), sum));
            if (in.readLong() != MAGIC || in.readInt() != VERSION) {
                throw new FileFormatException(path + " is no file of what a teacher says, or of another version");
            }
            String fingerprint = in.readUTF();
            String teacher = in.readUTF();
            int topK = in.readInt();
            boolean whole = in.readBoolean();
            double temperature = in.readDouble();
            int examples = in.readInt();
            long length = path.toFile().length();
            if (topK < 1 || examples < 0 || examples > length / Integer.BYTES) {
                throw damaged(path);
            }
            long[] begins = new long[examples + 1];
            for (int i = 0; i < examples; i++) {
                begins[i + 1] = begins[i] + Math.max(0, in.readInt());
            }
            long head = Long.BYTES
                    + Integer.BYTES
                    + utf(fingerprint)
                    + utf(teacher)
                    + Integer.BYTES
                    + 1L
                    + Double.BYTES
                    + Integer.BYTES
                    + (long) Integer.BYTES * examples;
            long body = begins[examples] * topK * ENTRY;
            if (length != head + body + Long.BYTES) {
                throw damaged(path);
            }
            in.skipNBytes(body);
            long expected = sum.getValue();
            if (in.readLong() != expected) {
                throw damaged(path);
            }
            Header header = new Header(fingerprint, teacher, topK, whole, temperature);
            return new TeacherLogProbs(path, header, new RandomAccessFile(path.toFile(), "r"), head, begins);
        } catch (EOFException | java.io.UTFDataFormatException e) {
            throw damaged(path);
        } catch (IOException e) {
            throw new FileAccessException(path + " cannot be read: " + AtomicFile.reason(e), e);
        }
    }

    private static FileFormatException damaged(Path path) {
        return new FileFormatException(
                path + ", what a teacher said, is damaged or cut; remove it, and it is asked again");
    }

    /** Bytes that {@link DataOutputStream#writeUTF} takes. */
    private static long utf(String text) {
        long bytes = Short.BYTES;
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            bytes += c >= 1 && c <= 0x7f ? 1 : c <= 0x7ff ? 2 : 3;
        }
        return bytes;
    }

    /** {@return what it is about} */
    public Header header() {
        return header;
    }

    /** {@return the number of tokens of each position} */
    public int topK() {
        return header.topK();
    }

    /** {@return the number of sequences that it speaks of} */
    public int examples() {
        return begins.length - 1;
    }

    /** What it says of examples, each of so many sequences. */
    Batch.Candidates candidates(int[] numbers, int perExample) {
        long positions = 0;
        for (int number : numbers) {
            positions += begins[(number + 1) * perExample] - begins[number * perExample];
        }
        int n = Math.toIntExact(positions * topK());
        int[] ids = new int[n];
        float[] logProbs = new float[n];
        int at = 0;
        for (int number : numbers) {
            long first = begins[number * perExample];
            int count = (int) (begins[(number + 1) * perExample] - first) * topK();
            ByteBuffer entries = ByteBuffer.wrap(read(begin + first * topK() * ENTRY, count));
            for (int end = at + count; at < end; at++) {
                ids[at] = entries.getInt();
                logProbs[at] = entries.getFloat();
            }
        }
        return new Batch.Candidates(topK(), ids, logProbs, header.temperature(), header.whole());
    }

    private synchronized byte[] read(long from, int entries) {
        byte[] bytes = new byte[Math.multiplyExact(entries, ENTRY)];
        try {
            file.seek(from);
            file.readFully(bytes);
            return bytes;
        } catch (IOException e) {
            throw new FileAccessException(path + " cannot be read any more: " + AtomicFile.reason(e), e);
        }
    }

    /** Closes the file; batches are not made any more. */
    @Override
    public synchronized void close() {
        try {
            file.close();
        } catch (IOException e) {
            throw new FileAccessException(path + " cannot be closed: " + AtomicFile.reason(e), e);
        }
    }
}
