package dev.lorica.eval;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * How well a model predicts a data set.
 *
 * @param loss          mean of −log p over the tokens that would be trained on, each weighted alike; of another objective its
 *                      mean over examples
 * @param trainedTokens how many these are
 * @param tokens        tokens processed
 * @param examples      examples
 * @param seconds       time taken
 * @param metrics       what the objective logs, by TRL's names: {@code rewards/margins}; none in plain fine-tuning
 */
public record Evaluation(
        double loss, long trainedTokens, long tokens, int examples, double seconds, Map<String, Double> metrics) {
    /** Copies the metrics. */
    public Evaluation {
        metrics = metrics == null ? Map.of() : Collections.unmodifiableMap(new LinkedHashMap<>(metrics));
    }

    /**
     * Of plain fine-tuning, which has no metrics but the loss.
     *
     * @param loss          as {@link #loss()}
     * @param trainedTokens as {@link #trainedTokens()}
     * @param tokens        as {@link #tokens()}
     * @param examples      as {@link #examples()}
     * @param seconds       as {@link #seconds()}
     */
    public Evaluation(double loss, long trainedTokens, long tokens, int examples, double seconds) {
        this(loss, trainedTokens, tokens, examples, seconds, Map.of());
    }

    /** {@return whether the loss is a mean of −log p over tokens, of which there is a perplexity} */
    public boolean hasPerplexity() {
        return metrics.isEmpty();
    }

    /** {@return e to the loss; of use where {@link #hasPerplexity}} */
    public double perplexity() {
        return Math.exp(loss);
    }
}
