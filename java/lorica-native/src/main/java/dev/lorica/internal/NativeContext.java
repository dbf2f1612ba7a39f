package dev.lorica.internal;

import static dev.lorica.internal.Status.check;

import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_kv_cache;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.function.ToIntFunction;

/** A KV cache, as the native library holds it, and the adapters that are applied. */
public final class NativeContext implements AutoCloseable {
    private static final double[] NONE = {};

    private final NativeHandle<lorica_kv_cache> handle;
    /** By text: none of them changes while it is computed with. */
    private final List<List<NativeAdapter>> adapters;

    /** Of one text. */
    public NativeContext(NativeModel model, int capacity) {
        this(model, capacity, 1);
    }

    /**
     * @param capacity positions of a text
     * @param texts    so many at once, numbered from 0
     */
    public NativeContext(NativeModel model, int capacity, int texts) {
        lorica_kv_cache pointer = new lorica_kv_cache();
        NativeLibrary.reserveHeap();
        check(model.handle.shared(m -> Lorica.lorica_kv_cache_create_many(m, null, capacity, texts, pointer)));
        handle = new NativeHandle<>("the generator", pointer, Lorica::lorica_kv_cache_free, model.handle);
        adapters = new ArrayList<>(Collections.nCopies(texts, List.of()));
    }

    /** Empties the cache and goes on with the sum of these adapters, as they are now. */
    public void setAdapters(List<NativeAdapter> adapters, double[] scales) {
        check(AdapterArray.with(
                adapters,
                scales,
                (pointers, factors, n) -> handle.exclusive(
                        context -> Lorica.lorica_kv_cache_set_adapters(context, pointers, factors, n))));
        this.adapters.replaceAll(before -> List.copyOf(adapters));
    }

    /**
     * The same for one text alone.
     *
     * @throws dev.lorica.exceptions.UnsupportedException for virtual tokens, which all texts have or none
     */
    public void setAdapters(int text, List<NativeAdapter> adapters, double[] scales) {
        check(AdapterArray.with(
                adapters,
                scales,
                (pointers, factors, n) -> handle.exclusive(
                        context -> Lorica.lorica_kv_cache_slot_set_adapters(context, text, pointers, factors, n))));
        this.adapters.set(text, List.copyOf(adapters));
    }

    private int unchanged(List<NativeAdapter> used, ToIntFunction<lorica_kv_cache> call) {
        return AdapterArray.with(used, NONE, (pointers, factors, n) -> handle.exclusive(call::applyAsInt));
    }

    /**
     * Appends tokens and writes the logits of the last one. During the call the adapters do not change. After a call that was
     * cancelled there may be fewer tokens than before it: see {@link #length()}.
     *
     * @param logits [vocabulary]
     */
    public void append(int[] tokens, float[] logits) {
        check(unchanged(
                adapters.get(0),
                context -> Lorica.lorica_kv_cache_eval(context, tokens, tokens.length, false, logits)));
    }

    /**
     * Appends tokens and writes the logits of each.
     *
     * @param logits [tokens, vocabulary]
     */
    public void appendAll(int[] tokens, float[] logits) {
        check(unchanged(
                adapters.get(0), context -> Lorica.lorica_kv_cache_eval(context, tokens, tokens.length, true, logits)));
    }

    /**
     * Appends to several texts and writes the logits of the last token of each.
     *
     * @param texts  their numbers
     * @param counts how many tokens to each
     * @param tokens all of them, one after another
     * @param logits [texts, vocabulary]; {@code null}: not wanted
     */
    public void append(int[] texts, int[] counts, int[] tokens, float[] logits) {
        List<NativeAdapter> used = Arrays.stream(texts)
                .mapToObj(adapters::get)
                .flatMap(List::stream)
                .distinct()
                .toList();
        check(unchanged(
                used,
                context -> Lorica.lorica_kv_cache_eval_many(context, texts, counts, texts.length, tokens, logits)));
    }

    /** Makes the first {@code length} tokens of one text another. Returns its length: 0 where a window has forgotten what they need. */
    public int copy(int from, int to, int length) {
        check(handle.exclusive(context -> Lorica.lorica_kv_cache_slot_copy(context, from, to, length)));
        return length(to);
    }

    /** Forgets all tokens of a text from {@code length} on. Returns its length: 0 where a window has forgotten what comes before. */
    public int truncate(int text, int length) {
        check(handle.exclusive(context -> Lorica.lorica_kv_cache_slot_truncate(context, text, length)));
        return length(text);
    }

    /** Tokens of the only text. */
    public int length() {
        return length(0);
    }

    private int length(int text) {
        return handle.exclusive(context -> Lorica.lorica_kv_cache_slot_n_past(context, text));
    }

    /** From any thread: while cancelled, {@link #append} ends soon with a CancelledException, also one that runs already. */
    public void cancel(boolean cancelled) {
        handle.signal(cache -> Lorica.lorica_kv_cache_cancel(cache, cancelled));
    }

    /** {@link #truncate(int, int)} of the only text. */
    public int truncate(int length) {
        return truncate(0, length);
    }

    @Override
    public void close() {
        handle.close();
    }
}
