package dev.lorica.generate;

import dev.lorica.Model;
import dev.lorica.Tokenizer;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.exceptions.CancelledException;
import dev.lorica.generate.GenerationResult.FinishReason;
import java.util.Iterator;
import java.util.List;
import java.util.NoSuchElementException;

/**
 * One text being generated, made by {@link Generator}. Can be walked through once: each step computes until there is a piece of
 * text that is certain, which is never half a character and never part of a stop string. Not for use by several threads at once,
 * except {@link #cancel}.
 */
public final class Generation implements Iterable<String> {
    private final Generator generator;
    private final Tokenizer tokenizer;
    private final int[] prompt;
    private final GenerationConfig config;
    private final List<ScaledAdapter> adapters;
    private final float[] logits;
    private Pieces pieces;
    private GenerationResult result;
    private volatile boolean cancelled;

    Generation(Generator generator, Model model, int[] prompt, GenerationConfig config, List<ScaledAdapter> adapters) {
        this.generator = generator;
        this.tokenizer = model.tokenizer();
        this.prompt = prompt;
        this.config = config;
        this.adapters = adapters;
        this.logits = new float[model.info().vocabSize()];
    }

    /** The pieces as they come. May be called once. */
    @Override
    public Iterator<String> iterator() {
        if (pieces != null) {
            throw new IllegalStateException(
                    "a generation can be walked through only once; its result has the whole text");
        }
        pieces = new Pieces();
        return pieces;
    }

    /** {@return the whole text with counts and times, after generating what is left} */
    public GenerationResult result() {
        if (pieces == null) {
            pieces = new Pieces();
        }
        while (pieces.hasNext()) {
            pieces.next();
        }
        return result;
    }

    /**
     * Ends it soon, from any thread, also while a long prompt is processed: the result then is what there is, with
     * {@link FinishReason#CANCELLED}. Without effect when it is over.
     */
    public void cancel() {
        cancelled = true;
        generator.cancel(this);
    }

    boolean isCancelled() {
        return cancelled;
    }

    List<ScaledAdapter> adapters() {
        return adapters;
    }

    private final class Pieces implements Iterator<String> {
        /** {@code null} until the prompt is processed. */
        private Continuation text;

        private int reused;
        private double promptSeconds;
        private String next;

        @Override
        public boolean hasNext() {
            while (next == null && result == null) {
                String piece = step();
                next = piece.isEmpty() ? null : piece;
            }
            return next != null;
        }

        @Override
        public String next() {
            if (!hasNext()) {
                throw new NoSuchElementException("the generation is over");
            }
            String piece = next;
            next = null;
            return piece;
        }

        /** Generates one token and gives the text that is certain then. */
        private String step() {
            long begin = System.nanoTime();
            if (text == null) {
                try {
                    reused = generator.begin(Generation.this, prompt, config.maxNewTokens(), logits);
                } catch (CancelledException e) {
                    result = new GenerationResult(
                            "",
                            FinishReason.CANCELLED,
                            prompt.length,
                            0,
                            0,
                            0,
                            (System.nanoTime() - begin) / 1e9,
                            new int[0],
                            List.of());
                    return "";
                }
                promptSeconds = (System.nanoTime() - begin) / 1e9;
                text = new Continuation(tokenizer, prompt, config);
            }
            String piece = text.draw(logits);
            FinishReason finished = text.finished() == null ? append() : text.finished();
            return finished == null ? piece : piece + end(finished);
        }

        /** Makes the logits of the token behind the last one; a reason, if there are none. */
        private FinishReason append() {
            try {
                return generator.append(Generation.this, text.lastToken(), logits) ? null : FinishReason.CONTEXT_FULL;
            } catch (CancelledException e) {
                return FinishReason.CANCELLED;
            }
        }

        private String end(FinishReason reason) {
            String rest = text.finish(reason);
            result = text.result(reason, reused, promptSeconds);
            return rest;
        }
    }
}
