package dev.lorica.data;

import dev.lorica.exceptions.FileAccessException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.IntBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;

/**
 * Examples, packed: four bytes for a token, four more where tokens have weights, eight for an example. What exceeds a part of the heap goes to a temporary file that
 * is mapped, so that a data set may be larger than memory. The file has no name any more as soon as it is open: it is gone with
 * the process, however that ends.
 */
final class ExampleStore implements Examples {
    /** Tokens of a chunk, and so the most of one example. */
    static final int CHUNK = 1 << 20;

    private static final int TRAINED = 1 << 31;
    private static final int LENGTH_BITS = 24;
    /** Of what a page says of the length: the weights of the tokens stand behind them. */
    private static final int WEIGHTED = 1 << LENGTH_BITS - 1;

    private static final int PAGE = 1 << 13;

    private final long heapTokens;
    private final List<IntBuffer> chunks = new ArrayList<>();
    /** Where an example begins, in tokens, and its length. */
    private final List<long[]> pages = new ArrayList<>();

    private int size;
    /** Of the weights. */
    private float least = Float.POSITIVE_INFINITY;

    private float most = Float.NEGATIVE_INFINITY;
    private IntBuffer open = IntBuffer.allocate(1 << 10);
    private FileChannel file;

    ExampleStore() {
        this(Math.min(64L << 20, Runtime.getRuntime().maxMemory() / 8 / Integer.BYTES));
    }

    /** @param heapTokens tokens that may be in memory */
    ExampleStore(long heapTokens) {
        this.heapTokens = heapTokens;
    }

    void add(Example example) {
        int tokens = example.length();
        int length = example.weights() == null ? tokens : 2 * tokens;
        if (length > CHUNK) {
            throw new DataException("an example of " + tokens + " tokens; the most is "
                    + (example.weights() == null ? CHUNK : CHUNK / 2 + " where they have weights"));
        }
        if (size == Integer.MAX_VALUE - 8) {
            throw new DataException("more than " + size + " examples");
        }
        if (open.position() + length > CHUNK) {
            close(open);
            open = IntBuffer.allocate(CHUNK);
        } else if (open.remaining() < length) {
            IntBuffer larger =
                    IntBuffer.allocate((int) Math.min(CHUNK, Math.max(2L * open.capacity(), open.position() + length)));
            larger.put(open.flip());
            open = larger;
        }
        if (size % PAGE == 0) {
            pages.add(new long[PAGE]);
        }
        long begin = (long) chunks.size() * CHUNK + open.position();
        pages.get(size / PAGE)[size % PAGE] =
                begin << LENGTH_BITS | (example.weights() == null ? 0 : WEIGHTED) | tokens;
        for (int i = 0; i < tokens; i++) {
            open.put(example.ids()[i] | (example.trained()[i] ? TRAINED : 0));
        }
        for (int i = 0; example.weights() != null && i < tokens; i++) {
            open.put(Float.floatToRawIntBits(example.weights()[i]));
            if (example.trained()[i]) {
                least = Math.min(least, example.weights()[i]);
                most = Math.max(most, example.weights()[i]);
            }
        }
        size++;
    }

    private void close(IntBuffer chunk) {
        chunk.flip();
        chunks.add((long) (chunks.size() + 1) * CHUNK <= heapTokens ? chunk : spilled(chunk));
    }

    private IntBuffer spilled(IntBuffer chunk) {
        try {
            if (file == null) {
                Path path = Files.createTempFile("lorica-examples-", ".bin");
                file = FileChannel.open(
                        path, StandardOpenOption.READ, StandardOpenOption.WRITE, StandardOpenOption.DELETE_ON_CLOSE);
                Files.deleteIfExists(path);
            }
            ByteBuffer bytes = ByteBuffer.allocate(chunk.remaining() * Integer.BYTES);
            bytes.asIntBuffer().put(chunk.duplicate());
            long begin = file.size();
            // Written, not stored through the mapping: a full disk is an error here, but there the end of the process.
            while (bytes.hasRemaining()) {
                file.write(bytes, begin + bytes.position());
            }
            return file.map(FileChannel.MapMode.READ_ONLY, begin, bytes.capacity())
                    .asIntBuffer();
        } catch (IOException e) {
            throw new FileAccessException(
                    "a temporary file for tokens cannot be written to " + System.getProperty("java.io.tmpdir") + ": "
                            + e.getMessage() + "; TMPDIR or -Djava.io.tmpdir names another folder",
                    e);
        }
    }

    /** Whether some of it is in a file. */
    boolean isSpilled() {
        return file != null;
    }

    @Override
    public int size() {
        return size;
    }

    @Override
    public int length(int index) {
        return (int) (pages.get(index / PAGE)[index % PAGE] & (WEIGHTED - 1));
    }

    @Override
    public float[] weights() {
        return least > most ? null : new float[] {least, most};
    }

    @Override
    public Example get(int index) {
        long place = pages.get(index / PAGE)[index % PAGE];
        long begin = place >>> LENGTH_BITS;
        int[] ids = new int[length(index)];
        boolean[] trained = new boolean[ids.length];
        int chunk = (int) (begin / CHUNK);
        IntBuffer tokens = chunk < chunks.size() ? chunks.get(chunk) : open;
        IntBuffer all = tokens.duplicate().clear();
        all.get((int) (begin % CHUNK), ids);
        float[] weights = (place & WEIGHTED) == 0 ? null : new float[ids.length];
        for (int i = 0; weights != null && i < ids.length; i++) {
            weights[i] = Float.intBitsToFloat(all.get((int) (begin % CHUNK) + ids.length + i));
        }
        for (int i = 0; i < ids.length; i++) {
            trained[i] = ids[i] < 0;
            ids[i] &= ~TRAINED;
        }
        return new Example(ids, trained, weights);
    }
}
