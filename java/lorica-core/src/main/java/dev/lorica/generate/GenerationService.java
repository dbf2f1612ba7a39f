package dev.lorica.generate;

import dev.lorica.Model;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.exceptions.BusyException;
import dev.lorica.exceptions.CancelledException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.MemoryException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.generate.BatchGenerator.Request;
import dev.lorica.internal.Arguments;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Generates texts for many callers at once: each enters when there is room, goes on one token at a time beside the others, and leaves
 * when it ends or is cancelled.
 *
 * <pre>{@code
 * try (GenerationService service = new GenerationService(model, GenerationService.Config.defaults())) {
 *     StreamedText text = service.submit(new BatchGenerator.Request(prompt, config), List.of());
 *     for (StreamedText.Piece piece = text.next(1000); piece != null; piece = text.next(1000)) {
 *         System.out.print(piece.text());
 *     }
 * }
 * }</pre>
 *
 * Each text has a configuration and adapters of its own. Texts of all adapters go through the model together: LoRAs, sums of them and
 * the base in one pass, each row with its own, those of other kinds (DoRA, IA3, weights trained whole) one after another within the
 * same step. Adapters with virtual tokens (prompts, prefixes) have a cache of their own, for which memory is taken when its first text
 * comes, and given back when it is wanted elsewhere and none of its texts runs. A long prompt is processed in pieces, between which the
 * other texts go on. What a prompt has in common with the beginning of a text that is or was there with the same adapters is not
 * processed again. With other texts beside it, a text is what it is alone, up to rounding.
 *
 * <p>Adapters are applied as they are when the first text with them begins; after changing one, {@link #forget} it. Any thread may
 * use this.
 */
public final class GenerationService implements AutoCloseable {
    /** Tokens of prompts that are processed before the other texts go on by one. */
    private static final int PROMPT_PIECE = 256;

    /**
     * How much at once.
     *
     * @param texts     that are generated at once, of all adapters together
     * @param positions of each, prompt included; memory for {@code texts} times as many is taken
     * @param waiting   texts that may wait for a place
     */
    public record Config(int texts, int positions, int waiting) {
        /**
         * Checks the components.
         *
         * @throws InvalidArgumentException naming the one that is wrong
         */
        public Config {
            Arguments.atLeast(1, texts, "texts");
            Arguments.atLeast(1, positions, "positions");
            Arguments.atLeast(0, waiting, "waiting");
        }

        /** {@return 8 texts of 4096 positions, and 256 that wait} */
        public static Config defaults() {
            return new Config(8, 4096, 256);
        }
    }

    /**
     * What is going on.
     *
     * @param running         texts being generated
     * @param waiting         texts that wait for a place
     * @param promptTokens    of all texts that have begun since this was made
     * @param reusedTokens    those of them that had been processed before
     * @param generatedTokens likewise
     */
    public record Load(int running, int waiting, long promptTokens, long reusedTokens, long generatedTokens) {}

    private record Waiting(TextBatch.Taker text, List<ScaledAdapter> adapters) {}

    private final Model model;
    private final Config config;
    private final int positions;
    private final Invocations invocations = new Invocations();
    private final Thread thread;
    private final Object lock = new Object();
    private final Deque<Waiting> waiting = new ArrayDeque<>();
    /** The thread's own, and so the next; made for the first text. */
    private TextBatch shared;

    /** Of adapters that are those of all texts of a batch. */
    private final Map<List<ScaledAdapter>, TextBatch> own = new LinkedHashMap<>();

    private final List<List<ScaledAdapter>> forgotten = new ArrayList<>();
    private boolean awake;
    private boolean closed;
    private boolean ended;
    private volatile TextBatch current;
    private volatile int running;
    private volatile long promptTokens;
    private volatile long reusedTokens;
    private volatile long generatedTokens;

    /**
     * Takes no memory for texts yet: that is for the first of them, which fails with a {@link MemoryException} where there is too little.
     *
     * @param model  the model, which stays the caller's
     * @param config how many texts at once, and how long
     * @throws UnsupportedException if the model writes no texts
     */
    public GenerationService(Model model, Config config) {
        Arguments.given(model, "model");
        Arguments.given(config, "config");
        this.model = model;
        this.config = config;
        positions = Math.min(config.positions(), model.info().contextLength());
        Generator.requireWriter(model);
        thread = new Thread(this::run, "lorica-generation");
        thread.setDaemon(true);
        thread.start();
    }

    /** {@return of a text, prompt included} */
    public int positions() {
        return positions;
    }

    /**
     * Asks for a text.
     *
     * @param request  the prompt, and how the text is drawn
     * @param adapters whose sum is applied; none: the base alone
     * @return the text, to be read while it comes
     * @throws BusyException            if as many wait as may
     * @throws InvalidArgumentException if the prompt has more tokens than there are positions
     */
    public StreamedText submit(Request request, List<ScaledAdapter> adapters) {
        Arguments.given(request, "request");
        return submit(List.of(request), adapters).get(0);
    }

    /**
     * Asks for several texts, of which all may wait or none.
     *
     * @param requests the prompts, and how the texts are drawn
     * @param adapters whose sum is applied; none: the base alone
     * @return the texts, in the order of the requests
     */
    public List<StreamedText> submit(List<Request> requests, List<ScaledAdapter> adapters) {
        List<Request> all = Arguments.all(requests, "requests");
        List<ScaledAdapter> applied = Arguments.all(adapters, "adapters");
        applied.forEach(one -> one.adapter().requireModel(model));
        for (Request request : all) {
            if (request.prompt().length > positions) {
                throw new InvalidArgumentException("the prompt has " + request.prompt().length
                        + " tokens, more than the " + positions + " positions of a text");
            }
            invocations.look(request.prompt(), applied);
        }
        Object monitor = new Object();
        List<StreamedText> texts = all.stream()
                .map(request -> new StreamedText(this, request, monitor))
                .toList();
        synchronized (lock) {
            if (closed) {
                throw new IllegalStateException("the generation service is closed");
            }
            int free = Math.max(0, config.texts() - running);
            if (waiting.size() + all.size() > config.waiting() + free) {
                throw new BusyException(
                        waiting.size() + " texts are waiting already, and " + config.waiting() + " may wait");
            }
            texts.forEach(text -> waiting.add(new Waiting(text.taker(), applied)));
            wake();
        }
        return texts;
    }

    /**
     * Lets go of these adapters, in the order in which they were submitted, and waits for that: their texts that run go on to their
     * end first. To be called before an adapter is closed.
     *
     * @param adapters as they were submitted
     */
    public void forget(List<ScaledAdapter> adapters) {
        List<ScaledAdapter> applied = Arguments.all(adapters, "adapters");
        boolean interrupted = false;
        synchronized (lock) {
            if (!closed) {
                forgotten.add(applied);
                wake();
            }
            while (!ended && forgotten.contains(applied)) {
                try {
                    lock.wait();
                } catch (InterruptedException e) {
                    interrupted = true;
                }
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    /** {@return how many texts run and how many wait} */
    public Load load() {
        synchronized (lock) {
            return new Load(running, waiting.size(), promptTokens, reusedTokens, generatedTokens);
        }
    }

    void wake() {
        synchronized (lock) {
            awake = true;
            lock.notifyAll();
        }
    }

    private void run() {
        try {
            while (rest()) {
                forget();
                admit();
                step();
            }
        } finally {
            end();
        }
    }

    /** Waits for something to do; false: to end. */
    private boolean rest() {
        synchronized (lock) {
            while (!closed && !awake && running == 0 && waiting.isEmpty() && forgotten.isEmpty()) {
                try {
                    lock.wait();
                } catch (InterruptedException e) {
                    return false;
                }
            }
            awake = false;
            return !closed;
        }
    }

    private void forget() {
        synchronized (lock) {
            boolean changed = forgotten.removeIf(adapters -> {
                boolean wanted = waiting.stream().anyMatch(one -> one.adapters.equals(adapters));
                return !wanted && letGo(adapters);
            });
            if (changed) {
                lock.notifyAll();
            }
        }
    }

    private boolean letGo(List<ScaledAdapter> adapters) {
        TextBatch batch = own.get(adapters);
        if (batch != null && !batch.isEmpty()) {
            return false;
        }
        if (batch != null) {
            own.remove(adapters);
            batch.close();
        }
        return shared == null || shared.forget(adapters);
    }

    /** Gives places to those who wait, in their order, and takes those away that do not want them any more. */
    private void admit() {
        List<Waiting> next = new ArrayList<>();
        synchronized (lock) {
            waiting.removeIf(one -> {
                if (one.text.isCancelled()) {
                    one.text.endUnbegun();
                }
                return one.text.isCancelled();
            });
            while (running + next.size() < config.texts() && !waiting.isEmpty()) {
                next.add(waiting.poll());
            }
            running += next.size();
        }
        for (Waiting one : next) {
            try {
                add(one);
            } catch (RuntimeException e) {
                one.text.fail(inWords(e));
            }
        }
    }

    private void add(Waiting one) {
        TextBatch known = own.get(one.adapters);
        if (known != null) {
            known.add(one.text, one.adapters);
            return;
        }
        if (shared == null) {
            shared = batch(List.of());
        }
        try {
            shared.add(one.text, one.adapters);
        } catch (UnsupportedException e) {
            TextBatch batch = batch(one.adapters); // which says so again where they cannot be applied at all
            own.put(one.adapters, batch);
            batch.add(one.text, one.adapters);
        }
    }

    private TextBatch batch(List<ScaledAdapter> adapters) {
        while (true) {
            try {
                return new TextBatch(model, adapters, config.texts(), positions);
            } catch (MemoryException e) {
                if (!closeAnIdleBatch()) {
                    throw e;
                }
            }
        }
    }

    private boolean closeAnIdleBatch() {
        for (TextBatch batch : batches()) {
            if (batch.isEmpty()) {
                close(batch);
                return true;
            }
        }
        return false;
    }

    private List<TextBatch> batches() {
        List<TextBatch> all = new ArrayList<>(own.values());
        if (shared != null) {
            all.add(shared);
        }
        return all;
    }

    private void close(TextBatch batch) {
        own.values().remove(batch);
        if (batch == shared) {
            shared = null;
        }
        batch.close();
    }

    private void step() {
        int left = 0;
        for (TextBatch batch : batches()) {
            if (batch.isEmpty()) {
                continue;
            }
            current = batch;
            try {
                batch.step(PROMPT_PIECE);
            } catch (RuntimeException e) {
                // What the cache holds now is not known.
                batch.fail(inWords(e));
                close(batch);
            } finally {
                current = null;
            }
            promptTokens += batch.takePromptTokens();
            reusedTokens += batch.takeReusedTokens();
            generatedTokens += batch.takeGeneratedTokens();
            left += batch.size();
        }
        synchronized (lock) {
            running = left;
        }
    }

    private static LoricaException inWords(RuntimeException e) {
        return e instanceof LoricaException said ? said : new LoricaException("the text cannot go on: " + e, e);
    }

    private void end() {
        synchronized (lock) {
            closed = true;
            waiting.forEach(one -> one.text.endUnbegun());
            waiting.clear();
            running = 0;
            ended = true;
            lock.notifyAll();
        }
        for (TextBatch batch : batches()) {
            batch.fail(new CancelledException("the generation service is closed"));
            batch.close();
        }
    }

    /** Ends all texts that are not complete, and waits until nothing is computed any more. */
    @Override
    public void close() {
        synchronized (lock) {
            closed = true;
            wake();
        }
        TextBatch computing = current;
        if (computing != null) {
            computing.cancel();
        }
        boolean interrupted = false;
        while (thread.isAlive() && thread != Thread.currentThread()) {
            try {
                thread.join();
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
