package dev.lorica.generate;

import static dev.lorica.internal.Status.check;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.AdapterArray;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.NativeHandle;
import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_context;
import java.util.Arrays;
import java.util.List;

/** A native context: the KV cache of one text, and which tokens are in it. */
public final class KvCache implements AutoCloseable {
    private List<ScaledAdapter> adapters = List.of();
    private final int vocabSize;
    private final NativeHandle<lorica_context> handle;
    private final int[] tokens;
    private int length;

    /** With one adapter; {@code null}: the base alone. */
    public KvCache(Model model, Adapter adapter, int capacity) {
        this(model, capacity);
        if (adapter != null) {
            setAdapters(List.of(new ScaledAdapter(adapter, 1)));
        }
    }

    /** The base alone. */
    public KvCache(Model model, int capacity) {
        this.vocabSize = model.info().vocabSize();
        lorica_context pointer = new lorica_context();
        check(model.handle().shared(m -> Lorica.lorica_context_create(m, null, capacity, pointer)));
        handle = new NativeHandle<>("the generator", pointer, Lorica::lorica_context_free, model.handle());
        tokens = new int[capacity];
    }

    /** Empties the cache and goes on with the sum of these adapters, as they are now. */
    public void setAdapters(List<ScaledAdapter> adapters) {
        AdapterArray.with(
                adapters,
                (pointers, scales, n) -> handle.exclusive(context -> {
                    check(Lorica.lorica_context_set_adapters(context, pointers, scales, n));
                    return null;
                }));
        this.adapters = adapters;
        length = 0;
    }

    public int capacity() {
        return tokens.length;
    }

    public int length() {
        return length;
    }

    /** How many tokens at the beginning of {@code text} are at the beginning of the cache. */
    public int commonPrefix(int[] text) {
        int mismatch = Arrays.mismatch(tokens, 0, length, text, 0, text.length);
        return mismatch < 0 ? length : mismatch;
    }

    /**
     * Appends tokens and writes the logits of the last one.
     *
     * @param logits [vocabulary]
     */
    public void append(int[] more, float[] logits) {
        if (more.length == 0 || more.length > tokens.length - length) {
            throw new InvalidArgumentException(
                    more.length + " tokens do not fit behind " + length + " of " + tokens.length);
        }
        if (logits.length != vocabSize) {
            throw new InvalidArgumentException(
                    "logits have room for " + logits.length + " tokens, not for " + vocabSize);
        }
        // During the call the adapters do not change.
        AdapterArray.with(
                adapters,
                (pointers, scales, n) -> handle.exclusive(context -> {
                    check(Lorica.lorica_context_eval(context, more, more.length, false, logits));
                    return null;
                }));
        System.arraycopy(more, 0, tokens, length, more.length);
        length += more.length;
    }

    /** Forgets all tokens from {@code newLength} on. */
    public void truncate(int newLength) {
        handle.exclusive(context -> {
            check(Lorica.lorica_context_truncate(context, newLength));
            return null;
        });
        length = newLength;
    }

    @Override
    public void close() {
        handle.close();
    }
}
