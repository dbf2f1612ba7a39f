package dev.lorica.eval;

import dev.lorica.Model;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.generate.TokenLogProbs;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeContext;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** Says of each token of a text how likely a model has it behind those before it, and what would have been likelier. */
public final class TokenScorer {
    /** Logits in memory at once. */
    private static final int LOGITS_AT_ONCE = 1 << 24;

    private static final int TOKENS_AT_ONCE = 256;

    private final Model model;
    private final List<ScaledAdapter> adapters;

    /**
     * Scores with a model and adapters of it, which stay the caller's.
     *
     * @param model    the base
     * @param adapters whose sum is applied; none: the base alone
     */
    public TokenScorer(Model model, List<ScaledAdapter> adapters) {
        Arguments.given(model, "model");
        this.model = model;
        this.adapters = Arguments.all(adapters, "adapters");
        this.adapters.forEach(one -> one.adapter().requireModel(model));
    }

    /**
     * {@return of all tokens but the first, before which there is nothing}
     *
     * @param tokens at least one, at most as many as the model's context has positions for
     * @param top    how many of the likeliest tokens are named at each place
     */
    public List<TokenLogProbs> score(int[] tokens, int top) {
        Arguments.given(tokens, "tokens");
        Arguments.check(tokens.length > 0, "tokens", "empty", "one token at least");
        Arguments.atLeast(0, top, "top");
        int context = model.info().contextLength();
        Arguments.check(
                tokens.length <= context,
                "tokens",
                tokens.length + " of them",
                "at most the " + context + " of the model's context");
        int vocabulary = model.info().vocabSize();
        int piece = Math.max(1, Math.min(TOKENS_AT_ONCE, LOGITS_AT_ONCE / vocabulary));
        List<TokenLogProbs> scores = new ArrayList<>();
        try (NativeContext engine = new NativeContext(Inner.MODEL.of(model), tokens.length)) {
            engine.setAdapters(
                    adapters.stream()
                            .map(one -> Inner.ADAPTER.of(one.adapter()))
                            .toList(),
                    adapters.stream().mapToDouble(ScaledAdapter::scale).toArray());
            for (int first = 0; first < tokens.length - 1; first += piece) {
                int n = Math.min(piece, tokens.length - 1 - first);
                float[] logits = new float[n * vocabulary];
                engine.appendAll(Arrays.copyOfRange(tokens, first, first + n), logits);
                for (int i = 0; i < n; i++) {
                    float[] own = Arrays.copyOfRange(logits, i * vocabulary, (i + 1) * vocabulary);
                    scores.add(TokenLogProbs.of(own, tokens[first + i + 1], top));
                }
            }
        }
        return scores;
    }
}
