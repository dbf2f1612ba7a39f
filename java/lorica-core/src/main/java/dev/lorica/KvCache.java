package dev.lorica;

import static dev.lorica.internal.Status.check;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.NativeHandle;
import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_adapter;
import dev.lorica.internal.c.lorica_context;
import java.util.Arrays;
import java.util.function.Function;

/** A native context: the KV cache of one text, and which tokens are in it. */
final class KvCache implements AutoCloseable {
    private final Adapter adapter;
    private final int vocabSize;
    private final NativeHandle<lorica_context> handle;
    private final int[] tokens;
    private int length;

    KvCache(Model model, Adapter adapter, int capacity) {
        this.adapter = adapter;
        this.vocabSize = model.info().vocabSize();
        lorica_context pointer = new lorica_context();
        check(model.handle().shared(m -> withAdapter(a -> Lorica.lorica_context_create(m, a, capacity, pointer))));
        handle = new NativeHandle<>(
                "the generator",
                pointer,
                Lorica::lorica_context_free,
                model.handle(),
                adapter == null ? null : adapter.handle());
        tokens = new int[capacity];
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
            throw new InvalidArgumentException(more.length + " tokens do not fit behind " + length + " of " + tokens.length);
        }
        if (logits.length != vocabSize) {
            throw new InvalidArgumentException("logits have room for " + logits.length + " tokens, not for " + vocabSize);
        }
        withAdapter(a -> handle.exclusive(context -> {
            check(Lorica.lorica_context_eval(context, more, more.length, false, logits));
            return null;
        }));
        System.arraycopy(more, 0, tokens, length, more.length);
        length += more.length;
    }

    /** Forgets all tokens from {@code newLength} on. */
    void truncate(int newLength) {
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

    /** A call during which the adapter, if there is one, does not change. */
    private <R> R withAdapter(Function<lorica_adapter, R> call) {
        return adapter == null ? call.apply(null) : adapter.handle().shared(call);
    }
}
