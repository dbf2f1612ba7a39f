package dev.lorica.eval;

/**
 * How well a model predicts a text, in windows.
 *
 * @param loss          mean of −log p over the tokens that were scored
 * @param standardError of that mean, as if the tokens were independent
 * @param windows       how many there were
 * @param scoredTokens  tokens that were scored
 * @param tokens        tokens of the text
 * @param seconds       time taken
 */
public record TextEvaluation(
        double loss, double standardError, int windows, long scoredTokens, long tokens, double seconds) {
    /** {@return e to the loss} */
    public double perplexity() {
        return Math.exp(loss);
    }

    /** {@return the standard error of {@link #perplexity}, to first order} */
    public double perplexityError() {
        return perplexity() * standardError;
    }
}
