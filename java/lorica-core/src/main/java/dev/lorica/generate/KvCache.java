package dev.lorica.generate;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.exceptions.CancelledException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeContext;
import java.util.Arrays;
import java.util.List;

/** A native context: the KV cache of one text, and which tokens are in it. */
final class KvCache implements AutoCloseable {
    private final int vocabSize;
    private final NativeContext engine;
    private final int[] tokens;
    private int length;

    /** With one adapter; {@code null}: the base alone. */
    KvCache(Model model, Adapter adapter, int capacity) {
        this(model, capacity);
        if (adapter != null) {
            setAdapters(List.of(new ScaledAdapter(adapter, 1)));
        }
    }

    /** The base alone. */
    KvCache(Model model, int capacity) {
        this.vocabSize = model.info().vocabSize();
        this.engine = new NativeContext(Inner.MODEL.of(model), capacity);
        tokens = new int[capacity];
    }

    /** Empties the cache and goes on with the sum of these adapters, as they are now. */
    void setAdapters(List<ScaledAdapter> adapters) {
        engine.setAdapters(
                adapters.stream().map(one -> Inner.ADAPTER.of(one.adapter())).toList(),
                adapters.stream().mapToDouble(ScaledAdapter::scale).toArray());
        length = 0;
    }

    int capacity() {
        return tokens.length;
    }

    int length() {
        return length;
    }

    /** How many tokens at the beginning of {@code text} are at the beginning of the cache. */
    int commonPrefix(int[] text) {
        int mismatch = Arrays.mismatch(tokens, 0, length, text, 0, text.length);
        return mismatch < 0 ? length : mismatch;
    }

    /**
     * Appends tokens and writes the logits of the last one.
     *
     * @param logits [vocabulary]
     */
    void append(int[] more, float[] logits) {
        if (more.length == 0 || more.length > tokens.length - length) {
            throw new InvalidArgumentException(
                    more.length + " tokens do not fit behind " + length + " of " + tokens.length);
        }
        if (logits.length != vocabSize) {
            throw new InvalidArgumentException(
                    "logits have room for " + logits.length + " tokens, not for " + vocabSize);
        }
        try {
            engine.append(more, logits);
        } catch (CancelledException e) {
            length = engine.truncate(Math.min(length, engine.length())); // without pieces of the prompt
            throw e;
        }
        System.arraycopy(more, 0, tokens, length, more.length);
        length += more.length;
    }

    /**
     * From any thread: while cancelled, {@link #append} ends soon with a {@link dev.lorica.exceptions.CancelledException}, also one
     * that runs already.
     */
    void cancel(boolean cancelled) {
        engine.cancel(cancelled);
    }

    /** Forgets all tokens from {@code newLength} on. Returns how many are left: none where a window has forgotten what comes before. */
    int truncate(int newLength) {
        length = engine.truncate(newLength);
        return length;
    }

    @Override
    public void close() {
        engine.close();
    }
}
