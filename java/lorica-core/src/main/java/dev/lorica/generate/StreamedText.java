package dev.lorica.generate;

import dev.lorica.exceptions.LoricaException;
import dev.lorica.generate.BatchGenerator.Request;
import dev.lorica.generate.GenerationResult.FinishReason;
import dev.lorica.internal.Arguments;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/**
 * A text that a {@link GenerationService} generates, or will. Whoever reads it slowly holds nobody up: what comes meanwhile is one
 * larger piece. Any thread may use it.
 */
public final class StreamedText {

    /**
     * What has come since the piece before.
     *
     * @param text     certain by now; may be empty
     * @param logProbs of the tokens drawn meanwhile, of which some may not have become text yet; empty unless asked for
     */
    public record Piece(String text, List<TokenLogProbs> logProbs) {}

    private final GenerationService service;
    private final Request request;
    /** Of all texts that were asked for together, so that one may wait for any of them. */
    private final Object monitor;

    private final Taker taker = new Taker();
    private final StringBuilder text = new StringBuilder();
    private final List<TokenLogProbs> logProbs = new ArrayList<>();
    private GenerationResult result;
    private LoricaException failure;
    private volatile boolean cancelled;

    StreamedText(GenerationService service, Request request, Object monitor) {
        this.service = service;
        this.request = request;
        this.monitor = monitor;
    }

    /**
     * Waits until there is something to be had of one of these texts, or one is over.
     *
     * @param texts        that were submitted together; at least one
     * @param milliseconds to wait at most
     * @throws InterruptedException if the thread is interrupted while it waits
     */
    public static void awaitAny(List<StreamedText> texts, long milliseconds) throws InterruptedException {
        List<StreamedText> all = Arguments.all(texts, "texts");
        Arguments.check(milliseconds >= 0, "milliseconds", milliseconds, "0 or more");
        Arguments.check(!all.isEmpty(), "texts", "empty", "one at least");
        Object monitor = all.get(0).monitor;
        Arguments.check(
                all.stream().allMatch(text -> text.monitor == monitor),
                "texts",
                "of several submissions",
                "submitted together");
        long begin = System.nanoTime();
        synchronized (monitor) {
            while (all.stream().noneMatch(StreamedText::isReady)) {
                long left = milliseconds - TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - begin);
                if (left <= 0) {
                    return;
                }
                monitor.wait(left);
            }
        }
    }

    private boolean isReady() {
        return !text.isEmpty() || !logProbs.isEmpty() || result != null || failure != null;
    }

    /**
     * What has come since the last call; waits for it.
     *
     * @param milliseconds to wait at most; after them the piece is empty
     * @return {@code null}: it is over, and all of it was given
     * @throws LoricaException if it could not be generated
     * @throws InterruptedException if the thread is interrupted while it waits
     */
    public Piece next(long milliseconds) throws InterruptedException {
        awaitAny(List.of(this), milliseconds);
        synchronized (monitor) {
            if (text.isEmpty() && logProbs.isEmpty()) {
                if (failure != null) {
                    throw failure;
                }
                if (result != null) {
                    return null;
                }
            }
            Piece piece = new Piece(text.toString(), List.copyOf(logProbs));
            text.setLength(0);
            logProbs.clear();
            return piece;
        }
    }

    /**
     * {@return the whole, once it is over; waits for that}
     *
     * @throws LoricaException if it could not be generated
     * @throws InterruptedException if the thread is interrupted while it waits
     */
    public GenerationResult result() throws InterruptedException {
        synchronized (monitor) {
            while (!isOver()) {
                monitor.wait();
            }
            if (failure != null) {
                throw failure;
            }
            return result;
        }
    }

    /** {@return whether nothing more will come} */
    public boolean isOver() {
        synchronized (monitor) {
            return result != null || failure != null;
        }
    }

    /** Ends it soon, with {@link FinishReason#CANCELLED}; its place is given to another. Without effect when it is over. */
    public void cancel() {
        cancelled = true;
        service.wake();
    }

    /** What those who generate see of it. */
    TextBatch.Taker taker() {
        return taker;
    }

    private final class Taker implements TextBatch.Taker {
        @Override
        public Request request() {
            return request;
        }

        @Override
        public boolean isCancelled() {
            return cancelled;
        }

        @Override
        public void add(String piece, List<TokenLogProbs> more) {
            change(() -> {
                text.append(piece);
                logProbs.addAll(more);
            });
        }

        @Override
        public void end(GenerationResult whole) {
            change(() -> result = whole);
        }

        @Override
        public void fail(LoricaException reason) {
            change(() -> failure = reason);
        }

        private void change(Runnable how) {
            synchronized (monitor) {
                how.run();
                monitor.notifyAll();
            }
        }
    }
}
