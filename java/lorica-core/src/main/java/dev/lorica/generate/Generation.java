package dev.lorica.generate;

import dev.lorica.Detokenizer;
import dev.lorica.Model;
import dev.lorica.Tokenizer;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.exceptions.CancelledException;
import dev.lorica.generate.GenerationResult.FinishReason;
import java.util.Arrays;
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
    private final Sampler sampler;
    private final float[] logits;
    private final StringBuilder text = new StringBuilder();
    private Pieces pieces;
    private GenerationResult result;
    private volatile boolean cancelled;

    Generation(Generator generator, Model model, int[] prompt, GenerationConfig config, List<ScaledAdapter> adapters) {
        this.generator = generator;
        this.tokenizer = model.tokenizer();
        this.prompt = prompt;
        this.config = config;
        this.adapters = adapters;
        this.sampler = new Sampler(config);
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

    /** Generates what is left, and gives the whole text with counts and times. */
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
        private final StopFilter filter = new StopFilter(config.stop());
        private Detokenizer detokenizer;
        private int[] tokens = prompt;
        private int count = prompt.length;
        private int reused;
        private double promptSeconds;
        private long start;
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
            if (detokenizer == null) {
                try {
                    begin();
                } catch (CancelledException e) {
                    return end(FinishReason.CANCELLED);
                }
            }
            int token = sampler.sample(logits, tokens, count);
            remember(token);
            String piece = tokenizer.isEndOfGeneration(token) ? "" : filter.push(detokenizer.push(token));
            text.append(piece);
            FinishReason finished = finishReason(token);
            return finished == null ? piece : piece + end(finished);
        }

        /** Why generation ends with this token; {@code null}, and the logits of the next one, when it goes on. */
        private FinishReason finishReason(int token) {
            if (tokenizer.isEndOfGeneration(token)) {
                return FinishReason.END_OF_TEXT;
            }
            if (filter.stopped()) {
                return FinishReason.STOP_STRING;
            }
            if (count - prompt.length == config.maxNewTokens()) {
                return FinishReason.MAX_NEW_TOKENS;
            }
            try {
                return generator.append(Generation.this, token, logits) ? null : FinishReason.CONTEXT_FULL;
            } catch (CancelledException e) {
                return FinishReason.CANCELLED;
            }
        }

        private void begin() {
            long begin = System.nanoTime();
            start = begin;
            reused = generator.begin(Generation.this, prompt, config.maxNewTokens(), logits);
            detokenizer = tokenizer.detokenizer(false);
            // The text goes on behind the prompt: SentencePiece drops a space only where a text begins.
            detokenizer.push(prompt[prompt.length - 1]);
            start = System.nanoTime();
            promptSeconds = (start - begin) / 1e9;
        }

        private void remember(int token) {
            if (count == tokens.length) {
                tokens = Arrays.copyOf(tokens, count + Math.max(16, count / 2));
            }
            tokens[count++] = token;
        }

        /** Makes the result; gives the text that was held back, which is wanted unless a stop string ended it. */
        private String end(FinishReason reason) {
            String rest = "";
            if (detokenizer != null) {
                rest = reason == FinishReason.STOP_STRING ? "" : filter.push(detokenizer.finish()) + filter.finish();
                detokenizer.close();
            }
            text.append(rest);
            result = new GenerationResult(
                    text.toString(),
                    reason,
                    prompt.length,
                    reused,
                    count - prompt.length,
                    promptSeconds,
                    (System.nanoTime() - start) / 1e9);
            return rest;
        }
    }
}
