package dev.lorica.generate;

import dev.lorica.Model;
import dev.lorica.Tokenizer;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.generate.GenerationResult.FinishReason;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeContext;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** Texts that go through the model together, with the same adapters. */
final class TextBatch implements AutoCloseable {
    private final Tokenizer tokenizer;
    private final int vocabSize;
    private final int positions;
    private final NativeContext engine;
    private final List<Place> places = new ArrayList<>();
    /** In the order in which they came. */
    private final List<Place> busy = new ArrayList<>();

    private long promptTokens;
    private long reusedTokens;
    private long generatedTokens;

    TextBatch(Model model, List<ScaledAdapter> adapters, int texts, int positions) {
        tokenizer = model.tokenizer();
        vocabSize = model.info().vocabSize();
        this.positions = positions;
        engine = new NativeContext(Inner.MODEL.of(model), positions, texts);
        try {
            engine.setAdapters(
                    adapters.stream()
                            .map(one -> Inner.ADAPTER.of(one.adapter()))
                            .toList(),
                    adapters.stream().mapToDouble(ScaledAdapter::scale).toArray());
        } catch (RuntimeException e) {
            engine.close();
            throw e;
        }
        for (int i = 0; i < texts; i++) {
            places.add(new Place(i));
        }
    }

    /** The room for one text, with what is in it. */
    private static final class Place {
        private final int number;
        /** Of prompt and text. */
        private int[] tokens = new int[0];
        /** So many of them are in the native cache. */
        private int cached;
        /** {@code null}: free. */
        private StreamedText text;

        private boolean begun;
        private int reused;
        private double promptSeconds;
        /** {@code null} until all of the prompt but its last token is in the cache. */
        private Continuation continuation;

        Place(int number) {
            this.number = number;
        }

        int common(int[] prompt) {
            int mismatch = Arrays.mismatch(tokens, 0, cached, prompt, 0, prompt.length);
            return mismatch < 0 ? cached : mismatch;
        }
    }

    boolean isEmpty() {
        return busy.isEmpty();
    }

    int size() {
        return busy.size();
    }

    long takePromptTokens() {
        long taken = promptTokens;
        promptTokens = 0;
        return taken;
    }

    long takeReusedTokens() {
        long taken = reusedTokens;
        reusedTokens = 0;
        return taken;
    }

    long takeGeneratedTokens() {
        long taken = generatedTokens;
        generatedTokens = 0;
        return taken;
    }

    /** Gives a text the free place that holds most of what it begins with. */
    void add(StreamedText text) {
        Place best = null;
        for (Place place : places) {
            int[] prompt = text.request().prompt();
            if (place.text == null && (best == null || place.common(prompt) > best.common(prompt))) {
                best = place;
            }
        }
        best.text = text;
        best.begun = false;
        best.continuation = null;
        best.promptSeconds = 0;
        busy.add(best);
        promptTokens += text.request().prompt().length;
    }

    /** So many tokens of prompts, and one token of each text whose prompt is done. */
    void step(int promptPiece) {
        for (Place place : List.copyOf(busy)) {
            if (place.text.isCancelled()) {
                end(place, FinishReason.CANCELLED);
            }
        }
        int left = promptPiece;
        for (Place place : busy) {
            if (left > 0 && place.continuation == null) {
                left -= process(place, left);
            }
        }
        List<Place> ready =
                busy.stream().filter(place -> place.continuation != null).toList();
        if (!ready.isEmpty()) {
            draw(ready);
        }
    }

    /** At most {@code most} tokens of the prompt. Returns how many they were. */
    private int process(Place place, int most) {
        long start = System.nanoTime();
        int[] prompt = place.text.request().prompt();
        int before = prompt.length - 1; // the last token goes through the model with the others' next ones
        if (!place.begun) {
            Place nearest = place;
            for (Place other : places) {
                nearest = other.common(prompt) > nearest.common(prompt) ? other : nearest;
            }
            int common = Math.min(nearest.common(prompt), before);
            place.reused = nearest == place
                    ? engine.truncate(place.number, common)
                    : engine.copy(nearest.number, place.number, common);
            place.tokens = prompt;
            place.cached = place.reused;
            place.begun = true;
            reusedTokens += place.reused;
        }
        int n = Math.min(most, before - place.cached);
        if (n > 0) {
            int[] piece = Arrays.copyOfRange(prompt, place.cached, place.cached + n);
            engine.append(new int[] {place.number}, new int[] {n}, piece, null);
            place.cached += n;
        }
        place.promptSeconds += (System.nanoTime() - start) / 1e9;
        if (place.cached == before) {
            place.continuation =
                    new Continuation(tokenizer, prompt, place.text.request().config());
        }
        return n;
    }

    private void draw(List<Place> ready) {
        int n = ready.size();
        int[] numbers = new int[n];
        int[] counts = new int[n];
        int[] next = new int[n];
        for (int i = 0; i < n; i++) {
            numbers[i] = ready.get(i).number;
            counts[i] = 1;
            next[i] = ready.get(i).continuation.lastToken();
        }
        float[] logits = new float[Math.multiplyExact(n, vocabSize)];
        engine.append(numbers, counts, next, logits);
        for (int i = 0; i < n; i++) {
            Place place = ready.get(i);
            place.cached = place.continuation.count();
            try {
                draw(place, Arrays.copyOfRange(logits, i * vocabSize, (i + 1) * vocabSize));
            } catch (LoricaException e) {
                // Of this text alone: a bias of a token that does not exist, logits that are no numbers.
                place.text.fail(e);
                free(place);
            }
        }
    }

    private void draw(Place place, float[] logits) {
        Continuation text = place.continuation;
        int known = text.logProbs().size();
        String piece = text.draw(logits);
        generatedTokens++;
        place.tokens = text.tokens();
        place.text.add(piece, text.logProbs().subList(known, text.logProbs().size()));
        FinishReason full = text.count() > positions ? FinishReason.CONTEXT_FULL : null;
        FinishReason reason = text.finished() != null ? text.finished() : full;
        if (reason != null) {
            end(place, reason);
        }
    }

    private void end(Place place, FinishReason reason) {
        StreamedText text = place.text;
        if (place.continuation == null) {
            text.endUnbegun();
        } else {
            text.add(place.continuation.finish(reason), List.of());
            text.end(place.continuation.result(reason, place.reused, place.promptSeconds));
        }
        free(place);
    }

    private void free(Place place) {
        if (place.continuation != null) {
            place.continuation.close();
        }
        place.text = null;
        place.continuation = null;
        busy.remove(place);
    }

    /** Ends all texts so. */
    void fail(LoricaException reason) {
        for (Place place : List.copyOf(busy)) {
            place.text.fail(reason);
            free(place);
        }
    }

    /** From any thread: what is computed ends soon, with an exception. */
    void cancel() {
        engine.cancel(true);
    }

    @Override
    public void close() {
        engine.close();
    }
}
