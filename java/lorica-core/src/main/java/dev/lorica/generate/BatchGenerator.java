package dev.lorica.generate;

import dev.lorica.Model;
import dev.lorica.Tokenizer;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.generate.GenerationResult.FinishReason;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeContext;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.function.BooleanSupplier;

/**
 * Generates many texts at once: one call of the engine computes a token of each.
 *
 * <pre>{@code
 * try (BatchGenerator generator = new BatchGenerator(model, List.of(), 16, 1024)) {
 *     generator.generate(requests.iterator(), (number, result) -> System.out.println(result.text()), () -> false);
 * }
 * }</pre>
 *
 * A text that ends makes room for the next request at once. What a prompt has in common with the beginning of a text that is or was
 * beside it is copied and not processed again: many answers to one question cost one prompt. A text is the one that
 * {@link Generator} makes, up to rounding: with other texts beside it, sums of products are added up in another order. The same call
 * gives the same texts. Not for use by several threads at once.
 */
public final class BatchGenerator implements AutoCloseable {

    /** A text to be generated: the ids that it begins with, and how it goes on. */
    public record Request(int[] prompt, GenerationConfig config) {
        public Request {
            Arguments.check(Arguments.given(prompt, "prompt").length > 0, "prompt", "empty", "one token at least");
            Arguments.given(config, "config");
        }
    }

    /** Who hears of a text that has ended. */
    @FunctionalInterface
    public interface Listener {
        /** @param number of the request, from 0 */
        void ended(int number, GenerationResult result);
    }

    private final Tokenizer tokenizer;
    private final int vocabSize;
    private final int positions;
    private final NativeContext engine;
    private final List<Place> places = new ArrayList<>();

    /**
     * @param adapters  whose sum is applied; none: the base alone
     * @param texts     the most at once
     * @param positions of each, prompt included; memory is taken for all of them
     */
    public BatchGenerator(Model model, List<ScaledAdapter> adapters, int texts, int positions) {
        Arguments.given(model, "model");
        Arguments.atLeast(1, texts, "texts");
        Arguments.atLeast(1, positions, "positions");
        List<ScaledAdapter> applied = Arguments.all(adapters, "adapters");
        applied.forEach(one -> one.adapter().requireModel(model));
        this.tokenizer = model.tokenizer();
        this.vocabSize = model.info().vocabSize();
        this.positions = Math.min(positions, model.info().contextLength());
        engine = new NativeContext(Inner.MODEL.of(model), this.positions, texts);
        try {
            engine.setAdapters(
                    applied.stream().map(one -> Inner.ADAPTER.of(one.adapter())).toList(),
                    applied.stream().mapToDouble(ScaledAdapter::scale).toArray());
        } catch (RuntimeException e) {
            engine.close();
            throw e;
        }
        for (int i = 0; i < texts; i++) {
            places.add(new Place(i));
        }
    }

    /** The room for one text, with what is in it. */
    private final class Place {
        private final int number;
        /** What the native cache holds; longer than that while a text is generated. */
        private int[] tokens = new int[0];

        private int cached;
        /** {@code null}: free. */
        private Text text;

        Place(int number) {
            this.number = number;
        }

        /** Tokens that a prompt has in common with what is cached here. */
        int common(int[] prompt) {
            int mismatch = Arrays.mismatch(tokens, 0, cached, prompt, 0, prompt.length);
            return mismatch < 0 ? cached : mismatch;
        }
    }

    /** A text that is being generated. */
    private record Text(int number, Continuation continuation, int reused, double promptSeconds) {}

    /**
     * Generates a text for each request. Results come in the order in which the texts end.
     *
     * @param requests taken one after another, whenever there is room
     * @param stop     asked before each token; when it becomes true, the texts that are not complete end with
     *                 {@link FinishReason#CANCELLED}, and no further requests are taken
     * @throws InvalidArgumentException if a prompt has more tokens than there are positions
     */
    public void generate(Iterator<Request> requests, Listener listener, BooleanSupplier stop) {
        Arguments.given(requests, "requests");
        Arguments.given(listener, "listener");
        Arguments.given(stop, "stop");
        int taken = 0;
        // What was cached before may differ in its last bits: a call is to give what it gives.
        places.forEach(place -> place.cached = 0);
        try {
            while (true) {
                boolean stopped = stop.getAsBoolean();
                for (Place place : places) {
                    if (place.text == null && !stopped && requests.hasNext()) {
                        begin(place, taken++, requests.next());
                    }
                }
                List<Place> busy =
                        places.stream().filter(place -> place.text != null).toList();
                if (busy.isEmpty()) {
                    return;
                }
                if (stopped) {
                    busy.forEach(place -> end(place, FinishReason.CANCELLED, listener));
                    return;
                }
                step(busy, listener);
            }
        } finally {
            for (Place place : places) {
                if (place.text != null) {
                    place.text.continuation.close();
                    place.text = null;
                }
            }
        }
    }

    /** Puts a prompt, but its last token, into the cache. */
    private void begin(Place place, int number, Request request) {
        int[] prompt = request.prompt;
        if (prompt.length > positions) {
            throw new InvalidArgumentException("the prompt of request " + number + " has " + prompt.length
                    + " tokens, more than the " + positions + " positions of a text");
        }
        long start = System.nanoTime();
        Place nearest = place;
        for (Place other : places) {
            nearest = other.common(prompt) > nearest.common(prompt) ? other : nearest;
        }
        int common = Math.min(nearest.common(prompt), prompt.length - 1);
        int reused = nearest == place
                ? engine.truncate(place.number, common)
                : engine.copy(nearest.number, place.number, common);
        place.tokens = prompt;
        place.cached = reused;
        if (reused < prompt.length - 1) {
            int[] rest = Arrays.copyOfRange(prompt, reused, prompt.length - 1);
            engine.append(new int[] {place.number}, new int[] {rest.length}, rest, null);
            place.cached = prompt.length - 1;
        }
        double seconds = (System.nanoTime() - start) / 1e9;
        place.text = new Text(number, new Continuation(tokenizer, prompt, request.config), reused, seconds);
    }

    /** One token of each text. */
    private void step(List<Place> busy, Listener listener) {
        int n = busy.size();
        int[] numbers = new int[n];
        int[] counts = new int[n];
        int[] next = new int[n];
        for (int i = 0; i < n; i++) {
            numbers[i] = busy.get(i).number;
            counts[i] = 1;
            next[i] = busy.get(i).text.continuation.lastToken();
        }
        float[] logits = new float[Math.multiplyExact(n, vocabSize)];
        engine.append(numbers, counts, next, logits);
        for (int i = 0; i < n; i++) {
            Place place = busy.get(i);
            Continuation text = place.text.continuation;
            place.cached = text.count();
            text.draw(Arrays.copyOfRange(logits, i * vocabSize, (i + 1) * vocabSize));
            place.tokens = text.tokens();
            FinishReason full = text.count() > positions ? FinishReason.CONTEXT_FULL : null;
            FinishReason reason = text.finished() != null ? text.finished() : full;
            if (reason != null) {
                end(place, reason, listener);
            }
        }
    }

    private static void end(Place place, FinishReason reason, Listener listener) {
        Text text = place.text;
        place.text = null;
        text.continuation.finish(reason);
        listener.ended(text.number, text.continuation.result(reason, text.reused, text.promptSeconds));
    }

    @Override
    public void close() {
        engine.close();
    }
}
