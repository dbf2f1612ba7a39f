package dev.lorica.eval;

/**
 * How well a model predicts a data set.
 *
 * @param loss          mean of −log p over the tokens that would be trained on, each weighted alike
 * @param trainedTokens how many these are
 * @param tokens        tokens processed
 * @param examples      examples
 * @param seconds       time taken
 */
public record Evaluation(double loss, long trainedTokens, long tokens, int examples, double seconds) {
    public double perplexity() {
        return Math.exp(loss);
    }
}
