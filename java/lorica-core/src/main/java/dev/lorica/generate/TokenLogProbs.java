package dev.lorica.generate;

import dev.lorica.internal.Arguments;
import java.io.Serializable;
import java.util.ArrayList;
import java.util.List;

/**
 * How likely a token was where it stands.
 *
 * @param token    its id
 * @param logProb  natural logarithm of its probability
 * @param likeliest what was likeliest there, likeliest first; the token itself may be among them
 */
public record TokenLogProbs(int token, double logProb, List<Likely> likeliest) implements Serializable {

    /**
     * A token that might have stood there.
     *
     * @param token   its id
     * @param logProb its log p
     */
    public record Likely(int token, double logProb) implements Serializable {}

    /**
     * {@return log p of a token, and of the likeliest ones beside it}
     *
     * @param logits [vocabulary]
     * @param token  the id whose log p is wanted
     * @param top    how many of the likeliest are wanted
     */
    public static TokenLogProbs of(float[] logits, int token, int top) {
        Arguments.given(logits, "logits");
        Arguments.index(token, logits.length, "token");
        Arguments.atLeast(0, top, "top");
        double highest = Double.NEGATIVE_INFINITY;
        for (float logit : logits) {
            highest = Math.max(highest, logit);
        }
        double sum = 0;
        for (float logit : logits) {
            sum += Math.exp(logit - highest);
        }
        double whole = highest + Math.log(sum);
        List<Likely> likeliest = new ArrayList<>();
        if (top > 0) {
            for (int id : Sampler.top(logits, Math.min(top, logits.length))) {
                likeliest.add(new Likely(id, logits[id] - whole));
            }
        }
        return new TokenLogProbs(token, logits[token] - whole, List.copyOf(likeliest));
    }
}
