package dev.lorica.generate;

import dev.lorica.Detokenizer;
import dev.lorica.Tokenizer;
import dev.lorica.generate.GenerationResult.FinishReason;
import dev.lorica.grammar.TokenMask;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** What is generated behind a prompt, token by token: which token is next, what text is certain by then, whether it is over. */
final class Continuation implements AutoCloseable {
    private final Tokenizer tokenizer;
    private final GenerationConfig config;
    private final TokenMask.Text form;
    private final Sampler sampler;
    private final StopFilter filter;
    private final Detokenizer detokenizer;
    private final StringBuilder text = new StringBuilder();
    private final List<TokenLogProbs> logProbs = new ArrayList<>();
    private final int promptLength;
    private final long start = System.nanoTime();
    private int[] tokens;
    private int count;
    private FinishReason finished;
    private int chosen;
    private TokenLogProbs chosenLogProbs;

    Continuation(Tokenizer tokenizer, int[] prompt, GenerationConfig config) {
        this(tokenizer, prompt, config, null);
    }

    /** @param mask what the text must be; {@code null}: anything */
    Continuation(Tokenizer tokenizer, int[] prompt, GenerationConfig config, TokenMask mask) {
        form = mask == null ? null : mask.text();
        this.tokenizer = tokenizer;
        this.config = config;
        sampler = new Sampler(config);
        filter = new StopFilter(config.stop());
        detokenizer = tokenizer.detokenizer(false);
        // The text goes on behind the prompt: SentencePiece drops a space only where a text begins.
        detokenizer.push(prompt[prompt.length - 1]);
        promptLength = prompt.length;
        tokens = prompt.clone();
        count = prompt.length;
    }

    /** Draws the next token, and gives the text that is certain then, which may be none. */
    String draw(float[] logits) {
        choose(logits);
        return take();
    }

    /** Whether what it may be is looked up where other texts look too. */
    boolean isMasked() {
        return form != null;
    }

    /** Draws the next token, which {@link #take} then appends. Texts that are not masked may do so at the same time. */
    void choose(float[] logits) {
        float[] raw = config.logProbs() < 0 ? null : logits.clone();
        if (form != null) {
            form.mask(logits, config.maxNewTokens() - (count - promptLength));
        }
        chosen = sampler.sample(logits, tokens, promptLength, count);
        chosenLogProbs = raw == null ? null : TokenLogProbs.of(raw, chosen, config.logProbs());
    }

    /** Appends the token that was chosen, and gives the text that is certain then, which may be none. */
    String take() {
        int token = chosen;
        if (chosenLogProbs != null) {
            logProbs.add(chosenLogProbs);
        }
        if (count == tokens.length) {
            tokens = Arrays.copyOf(tokens, count + Math.max(16, count / 2));
        }
        tokens[count++] = token;
        if (tokenizer.isEndOfGeneration(token)) {
            finished = FinishReason.END_OF_TEXT;
            return "";
        }
        if (form != null) {
            form.accept(tokenizer.tokenBytes(token));
        }
        String piece = filter.push(detokenizer.push(token));
        text.append(piece);
        if (filter.stopped()) {
            finished = FinishReason.STOP_STRING;
        } else if (form != null && form.isOver()) {
            finished = FinishReason.END_OF_TEXT;
        } else if (count - promptLength == config.maxNewTokens()) {
            finished = FinishReason.MAX_NEW_TOKENS;
        }
        return piece;
    }

    /** Of the tokens drawn, if they are wanted. */
    List<TokenLogProbs> logProbs() {
        return logProbs;
    }

    /** Why it is over with the token that was drawn last; {@code null}: it goes on. */
    FinishReason finished() {
        return finished;
    }

    /** The tokens of prompt and text; there is room for more behind the first {@link #count}. */
    int[] tokens() {
        return tokens;
    }

    int count() {
        return count;
    }

    int lastToken() {
        return tokens[count - 1];
    }

    /** Gives the text that was held back, which is wanted unless a stop string ended it, and closes this. */
    String finish(FinishReason reason) {
        String rest = reason == FinishReason.STOP_STRING ? "" : filter.push(detokenizer.finish()) + filter.finish();
        text.append(rest);
        close();
        return rest;
    }

    /**
     * The whole, once it is finished.
     *
     * @param reused        tokens of the prompt that had been processed before
     * @param promptSeconds that the others took
     */
    GenerationResult result(FinishReason reason, int reused, double promptSeconds) {
        return new GenerationResult(
                text.toString(),
                reason,
                promptLength,
                reused,
                count - promptLength,
                promptSeconds,
                (System.nanoTime() - start) / 1e9,
                Arrays.copyOfRange(tokens, promptLength, count),
                List.copyOf(logProbs));
    }

    @Override
    public void close() {
        detokenizer.close();
    }
}
