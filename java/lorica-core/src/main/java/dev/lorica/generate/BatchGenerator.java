package dev.lorica.generate;

import dev.lorica.Model;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.exceptions.CancelledException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.generate.GenerationResult.FinishReason;
import dev.lorica.grammar.TokenMask;
import dev.lorica.internal.Arguments;
import java.io.Serializable;
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
 * {@link Generator} makes, up to rounding: its prompt may be processed in other pieces, and what a device does with many rows adds
 * products in another order than with one. A step on a CPU in bf16 does not: it gives each text the logits to the bit that it has
 * alone. The same call gives the same texts. Not for use by several threads at once.
 */
public final class BatchGenerator implements AutoCloseable {

    /**
     * A text to be generated.
     *
     * @param prompt the ids that it begins with
     * @param config how it goes on
     * @param mask   what it must be; {@code null}: anything. With fewer tokens than {@link TokenMask#shortest} it might not be complete,
     *               and is refused
     */
    public record Request(int[] prompt, GenerationConfig config, TokenMask mask) implements Serializable {
        /**
         * Checks the components.
         *
         * @throws InvalidArgumentException if the prompt has no ids, or the text might have no room for its form
         */
        public Request {
            Arguments.check(Arguments.given(prompt, "prompt").length > 0, "prompt", "empty", "one token at least");
            Arguments.given(config, "config");
            if (mask != null && config.maxNewTokens() < mask.shortest()) {
                throw new InvalidArgumentException("a text of this form may take " + mask.shortest()
                        + " tokens, and there may be " + config.maxNewTokens());
            }
        }

        /**
         * A text that may be anything.
         *
         * @param prompt as {@link #prompt()}
         * @param config as {@link #config()}
         */
        public Request(int[] prompt, GenerationConfig config) {
            this(prompt, config, null);
        }
    }

    /** Who hears of a text that has ended. */
    @FunctionalInterface
    public interface Listener {
        /**
         * Is told when a text is over.
         *
         * @param number of the request, from 0
         * @param result the text, with counts and times
         */
        void ended(int number, GenerationResult result);
    }

    private final List<ScaledAdapter> adapters;
    private final int positions;
    private final TextBatch batch;
    private final Invocations invocations = new Invocations();

    /**
     * Takes memory for the texts.
     *
     * @param model     the model, which stays the caller's
     * @param adapters  whose sum is applied; none: the base alone
     * @param texts     the most at once
     * @param positions of each, prompt included; memory is taken for all of them
     */
    public BatchGenerator(Model model, List<ScaledAdapter> adapters, int texts, int positions) {
        Arguments.given(model, "model");
        Arguments.atLeast(1, texts, "texts");
        Arguments.atLeast(1, positions, "positions");
        this.adapters = Arguments.all(adapters, "adapters");
        this.adapters.forEach(one -> one.adapter().requireModel(model));
        this.positions = Math.min(positions, model.info().contextLength());
        batch = new TextBatch(model, this.adapters, texts, this.positions);
    }

    /** Of one call: what it was asked, and who hears of it. */
    private static final class Call {
        private final Listener listener;
        private boolean stopped;
        private LoricaException failure;

        Call(Listener listener) {
            this.listener = listener;
        }

        TextBatch.Taker taker(int number, Request request) {
            return new TextBatch.Taker() {
                @Override
                public Request request() {
                    return request;
                }

                @Override
                public boolean isCancelled() {
                    return stopped;
                }

                @Override
                public void end(GenerationResult whole) {
                    listener.ended(number, whole);
                }

                @Override
                public void fail(LoricaException reason) {
                    failure = failure == null ? reason : failure;
                }
            };
        }
    }

    /**
     * Generates a text for each request. Results come in the order in which the texts end.
     *
     * @param requests taken one after another, whenever there is room
     * @param listener is told of each text when it is over
     * @param stop     asked before each token; when it becomes true, the texts that are not complete end with {@link
     *                 FinishReason#CANCELLED}, and no further requests are taken
     * @throws InvalidArgumentException if a prompt has more tokens than there are positions
     */
    public void generate(Iterator<Request> requests, Listener listener, BooleanSupplier stop) {
        Arguments.given(requests, "requests");
        Arguments.given(listener, "listener");
        Arguments.given(stop, "stop");
        int taken = 0;
        Call call = new Call(listener);
        // What was cached before may differ in its last bits: a call is to give what it gives.
        batch.forget();
        try {
            while (true) {
                call.stopped = stop.getAsBoolean();
                while (!call.stopped && !batch.isFull() && requests.hasNext()) {
                    Request request = requests.next();
                    check(taken, request);
                    invocations.look(request.prompt, adapters);
                    batch.add(call.taker(taken++, request), adapters);
                }
                if (batch.isEmpty()) {
                    return;
                }
                if (call.stopped) {
                    batch.endCancelled();
                    return;
                }
                batch.step(Integer.MAX_VALUE);
                if (call.failure != null) {
                    throw call.failure;
                }
            }
        } finally {
            batch.fail(new CancelledException("the generation has ended"));
        }
    }

    private void check(int number, Request request) {
        if (request.prompt.length > positions) {
            throw new InvalidArgumentException("the prompt of request " + number + " has " + request.prompt.length
                    + " tokens, more than the " + positions + " positions of a text");
        }
    }

    @Override
    public void close() {
        batch.close();
    }
}
