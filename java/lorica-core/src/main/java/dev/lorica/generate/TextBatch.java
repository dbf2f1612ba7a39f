package dev.lorica.generate;

import dev.lorica.Model;
import dev.lorica.Tokenizer;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.generate.BatchGenerator.Request;
import dev.lorica.generate.GenerationResult.FinishReason;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeAdapter;
import dev.lorica.internal.NativeContext;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.function.IntConsumer;
import java.util.stream.IntStream;

/**
 * Texts that go through the model together, each with its adapters: sums of LoRAs in one pass, what is none one after another. Adapters
 * with virtual tokens are those of all texts of a batch, which is made with them.
 */
final class TextBatch implements AutoCloseable {
    /** Who wants a text, and hears what becomes of it. */
    interface Taker {
        Request request();

        /** Asked before each token. */
        boolean isCancelled();

        /** Some more is certain. */
        default void add(String piece, List<TokenLogProbs> logProbs) {}

        void end(GenerationResult whole);

        /** It cannot go on. */
        void fail(LoricaException reason);

        /** Over before anything was generated. */
        default void endUnbegun() {
            end(new GenerationResult(
                    "", FinishReason.CANCELLED, request().prompt().length, 0, 0, 0, 0, new int[0], List.of()));
        }
    }

    /** Up to so many rows, the CPU computes each as it does by itself: matvec_max_rows of the engine. */
    private static final int FEW_ROWS = 16;

    private final Tokenizer tokenizer;
    private final int vocabSize;
    private final int positions;
    private final NativeContext engine;
    private final List<Place> places = new ArrayList<>();
    /** In the order in which they came. */
    private final List<Place> busy = new ArrayList<>();
    /** Of the step before, which the next one writes over. */
    private float[] logits = {};

    private long added;
    private long promptTokens;
    private long reusedTokens;
    private long generatedTokens;

    TextBatch(Model model, List<ScaledAdapter> adapters, int texts, int positions) {
        tokenizer = model.tokenizer();
        vocabSize = model.info().vocabSize();
        this.positions = positions;
        engine = new NativeContext(Inner.MODEL.of(model), positions, texts);
        try {
            if (!adapters.isEmpty()) {
                engine.setAdapters(natives(adapters), scales(adapters));
            }
        } catch (RuntimeException e) {
            engine.close();
            throw e;
        }
        for (int i = 0; i < texts; i++) {
            places.add(new Place(i, adapters));
        }
    }

    private static List<NativeAdapter> natives(List<ScaledAdapter> adapters) {
        return adapters.stream().map(one -> Inner.ADAPTER.of(one.adapter())).toList();
    }

    private static double[] scales(List<ScaledAdapter> adapters) {
        return adapters.stream().mapToDouble(ScaledAdapter::scale).toArray();
    }

    /** The room for one text, with what is in it. */
    private static final class Place {
        private final int number;
        private List<ScaledAdapter> adapters;
        /** The higher, the later was it taken last. */
        private long taken;
        /** Of prompt and text. */
        private int[] tokens = new int[0];
        /** So many of them are in the native cache. */
        private int cached;
        /** {@code null}: free. */
        private Taker text;

        private boolean begun;
        private int reused;
        private double promptSeconds;
        /** {@code null} until all of the prompt but its last token is in the cache. */
        private Continuation continuation;

        Place(int number, List<ScaledAdapter> adapters) {
            this.number = number;
            this.adapters = adapters;
        }

        /** Tokens that a prompt has in common with what is cached here with these adapters. */
        int common(int[] prompt, List<ScaledAdapter> applied) {
            return common(prompt, applied, cached);
        }

        /** The same, once so many tokens are cached. */
        int common(int[] prompt, List<ScaledAdapter> applied, int held) {
            if (!adapters.equals(applied)) {
                return 0;
            }
            int mismatch = Arrays.mismatch(tokens, 0, held, prompt, 0, prompt.length);
            return mismatch < 0 ? held : mismatch;
        }

        /** Tokens of the prompt without its last one, which goes through the model with the others' next ones. */
        int beforeLast() {
            return text.request().prompt().length - 1;
        }
    }

    boolean isEmpty() {
        return busy.isEmpty();
    }

    int size() {
        return busy.size();
    }

    boolean isFull() {
        return busy.size() == places.size();
    }

    /** What the cache holds is not reused any more. */
    void forget() {
        places.forEach(place -> place.cached = 0);
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

    /**
     * Gives a text the free place that holds most of what it begins with, or else that which has been free for longest.
     *
     * @throws dev.lorica.exceptions.UnsupportedException if these adapters can only be those of all texts
     */
    void add(Taker text, List<ScaledAdapter> adapters) {
        int[] prompt = text.request().prompt();
        Place best = places.stream()
                .filter(place -> place.text == null)
                .max(Comparator.comparingInt((Place place) -> place.common(prompt, adapters))
                        .thenComparing(place -> -place.taken)
                        .thenComparing(place -> -place.number))
                .orElseThrow();
        apply(best, adapters);
        best.text = text;
        best.taken = ++added;
        best.begun = false;
        best.continuation = null;
        best.promptSeconds = 0;
        busy.add(best);
        promptTokens += prompt.length;
    }

    private void apply(Place place, List<ScaledAdapter> adapters) {
        if (!place.adapters.equals(adapters)) {
            engine.setAdapters(place.number, natives(adapters), scales(adapters));
            place.adapters = adapters;
            place.cached = 0;
        }
    }

    /** Lets go of adapters; false: a text still has them. */
    boolean forget(List<ScaledAdapter> adapters) {
        if (busy.stream().anyMatch(place -> place.adapters.equals(adapters))) {
            return false;
        }
        for (Place place : places) {
            if (place.adapters.equals(adapters)) {
                apply(place, List.of());
            }
        }
        return true;
    }

    /** So many tokens of prompts, and one token of each text whose prompt is done. */
    void step(int promptPiece) {
        endCancelled();
        read(promptPiece);
        List<Place> ready =
                busy.stream().filter(place -> place.continuation != null).toList();
        if (!ready.isEmpty()) {
            draw(ready);
        }
    }

    /** Some tokens of a prompt that go into the cache. */
    private record Piece(Place place, int count) {}

    /** At most {@code most} tokens of prompts. */
    private void read(int most) {
        int left = most;
        List<Piece> pieces = pieces(left);
        while (!pieces.isEmpty()) {
            // The rows of a long piece are summed up as they are without others; those of a short one, as long as all
            // are few.
            List<Piece> together = new ArrayList<>();
            List<Piece> few = new ArrayList<>();
            int fewRows = 0;
            for (Piece piece : pieces) {
                if (piece.count > FEW_ROWS) {
                    together.add(piece);
                } else {
                    if (fewRows + piece.count > FEW_ROWS) {
                        append(few);
                        few.clear();
                        fewRows = 0;
                    }
                    few.add(piece);
                    fewRows += piece.count;
                }
                left -= piece.count;
            }
            append(few);
            append(together);
            pieces = pieces(left);
        }
        for (Place place : busy) {
            Request request = place.text.request();
            if (place.continuation == null && place.begun && place.cached == place.beforeLast()) {
                place.continuation = new Continuation(tokenizer, request.prompt(), request.config(), request.mask());
            }
        }
    }

    /** What can be read now: a prompt waits for another one that it shares more with than with what is cached. */
    private List<Piece> pieces(int most) {
        List<Piece> pieces = new ArrayList<>();
        int left = most;
        for (Place place : busy) {
            if (left == 0) {
                break;
            }
            if (place.continuation == null && (place.begun || begin(place, pieces))) {
                int n = Math.min(left, place.beforeLast() - place.cached);
                if (n > 0) {
                    pieces.add(new Piece(place, n));
                    left -= n;
                }
            }
        }
        return pieces;
    }

    /** Takes over what is cached of a prompt; false: one of the pieces will hold more of it, by many tokens. */
    private boolean begin(Place place, List<Piece> pieces) {
        int[] prompt = place.text.request().prompt();
        Place nearest = place;
        for (Place other : places) {
            boolean nearer = other.common(prompt, place.adapters) > nearest.common(prompt, place.adapters);
            nearest = nearer ? other : nearest;
        }
        int common = Math.min(nearest.common(prompt, place.adapters), place.beforeLast());
        for (Piece piece : pieces) {
            int soon = piece.place.common(prompt, place.adapters, piece.place.cached + piece.count);
            if (Math.min(soon, place.beforeLast()) > common + FEW_ROWS) {
                return false;
            }
        }
        long start = System.nanoTime();
        place.reused = nearest == place
                ? engine.truncate(place.number, common)
                : engine.copy(nearest.number, place.number, common);
        place.tokens = prompt;
        place.cached = place.reused;
        place.begun = true;
        place.promptSeconds += (System.nanoTime() - start) / 1e9;
        reusedTokens += place.reused;
        return true;
    }

    private void append(List<Piece> pieces) {
        if (pieces.isEmpty()) {
            return;
        }
        long start = System.nanoTime();
        int[] numbers = pieces.stream().mapToInt(piece -> piece.place.number).toArray();
        int[] counts = pieces.stream().mapToInt(Piece::count).toArray();
        int[] tokens = pieces.stream()
                .flatMapToInt(piece ->
                        Arrays.stream(piece.place.tokens, piece.place.cached, piece.place.cached + piece.count))
                .toArray();
        engine.append(numbers, counts, tokens, null);
        double seconds = (System.nanoTime() - start) / 1e9;
        for (Piece piece : pieces) {
            piece.place.cached += piece.count;
            piece.place.promptSeconds += seconds * piece.count / tokens.length;
        }
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
        if (logits.length != Math.multiplyExact(n, vocabSize)) {
            logits = new float[n * vocabSize];
        }
        engine.append(numbers, counts, next, logits);
        LoricaException[] failures = new LoricaException[n];
        IntConsumer choose = i -> {
            try {
                ready.get(i).continuation.choose(Arrays.copyOfRange(logits, i * vocabSize, (i + 1) * vocabSize));
            } catch (LoricaException e) {
                // Of this text alone: a bias of a token that does not exist, logits that are no numbers.
                failures[i] = e;
            }
        };
        IntStream all = IntStream.range(0, n);
        boolean together = n > 1 && ready.stream().noneMatch(place -> place.continuation.isMasked());
        (together ? all.parallel() : all).forEach(choose);
        for (int i = 0; i < n; i++) {
            Place place = ready.get(i);
            place.cached = place.continuation.count();
            if (failures[i] == null) {
                take(place);
            } else {
                Taker text = place.text;
                free(place);
                text.fail(failures[i]);
            }
        }
    }

    private void take(Place place) {
        Continuation text = place.continuation;
        int known = text.logProbs().size();
        String piece = text.take();
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
        Taker text = place.text;
        Continuation continuation = place.continuation;
        String rest = continuation == null ? "" : continuation.finish(reason);
        free(place);
        if (continuation == null) {
            text.endUnbegun();
        } else {
            text.add(rest, List.of());
            text.end(continuation.result(reason, place.reused, place.promptSeconds));
        }
    }

    /** Ends the texts that are cancelled. */
    void endCancelled() {
        for (Place place : List.copyOf(busy)) {
            if (place.text.isCancelled()) {
                end(place, FinishReason.CANCELLED);
            }
        }
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
