package dev.lorica.generate;

import dev.lorica.exceptions.NonFiniteException;
import dev.lorica.internal.Arguments;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.random.RandomGenerator;

/**
 * Draws a token from logits. The filters work one after another, as in llama.cpp:
 * <ol>
 *   <li>the logit bias is added;</li>
 *   <li>repetition penalty (Keskar et al. 2019, section 4.1): the logit of a token seen is divided by it if positive, multiplied
 *       if not, once however often it was seen;</li>
 *   <li>presence and frequency penalty (OpenAI's): {@code presence + n · frequency} is taken off the logit of a token that was
 *       generated n times;</li>
 *   <li>top-k: the k likeliest tokens stay;</li>
 *   <li>top-p (Holtzman et al. 2020, section 3.1): the fewest of the likeliest tokens whose probabilities add up to p stay;</li>
 *   <li>min-p (Nguyen et al. 2024, section 3): tokens with at least min-p times the probability of the likeliest stay;</li>
 *   <li>temperature, and one draw from what is left. (Hugging Face's generate applies the temperature before the filters; at
 *       temperature 1 the two are the same.)</li>
 * </ol>
 * Among equal logits the lower id comes first. Temperature 0 takes the first token after the repetition penalty.
 *
 * <p>The random numbers are those of {@link SplittableRandom} with the seed, one {@code nextDouble} per token, so that a seed
 * gives the same text again. Not for use by several threads at once.
 */
public final class Sampler {
    /** Tokens that are looked at before all are put in order. */
    private static final int LIKELIEST = 512;

    private static final double LOG2_E = 1.4426950408889634;
    /** The upper bits of ln 2, so that a multiple of it is exact, and what they lack. */
    private static final double LN_2_UPPER = 0x1.62e42fee00000p-1;

    private static final double LN_2_LOWER = 1.9082149292705877e-10;
    /** Adding it rounds a double to a whole number. */
    private static final double ROUNDS = 0x1.8p52;

    private final GenerationConfig config;
    private final RandomGenerator random;

    /**
     * Draws from the beginning of the seed's numbers.
     *
     * @param config how tokens are drawn
     */
    public Sampler(GenerationConfig config) {
        Arguments.given(config, "config");
        this.config = config;
        this.random = new SplittableRandom(config.seed());
    }

    /**
     * As below, with nothing generated yet: a presence or frequency penalty has nothing to look at.
     *
     * @param logits [vocabulary]; changed by the call
     * @param seen   tokens so far; its first {@code count} entries
     * @param count  how many of them there are
     * @return the id of the token drawn
     */
    public int sample(float[] logits, int[] seen, int count) {
        return sample(logits, seen, count, count);
    }

    /**
     * Draws a token.
     *
     * @param logits [vocabulary]; changed by the call
     * @param seen   tokens so far, prompt included; its first {@code count} entries
     * @param prompt how many of them were not generated
     * @param count  how many entries of {@code seen} there are
     * @return the id of the token drawn
     */
    public int sample(float[] logits, int[] seen, int prompt, int count) {
        Arguments.given(logits, "logits");
        Arguments.given(seen, "seen");
        config.logitBias().forEach((id, bias) -> {
            Arguments.check(
                    id < logits.length,
                    "a token of the logit bias",
                    id,
                    "in the vocabulary, which has " + logits.length + " tokens");
            logits[id] += (float) (double) bias;
        });
        penalize(logits, seen, count);
        for (int i = prompt; i < count && config.frequencyPenalty() != 0; i++) {
            logits[seen[i]] -= (float) config.frequencyPenalty();
        }
        if (config.presencePenalty() != 0) {
            Arrays.stream(seen, prompt, Math.max(prompt, count))
                    .distinct()
                    .forEach(id -> logits[id] -= (float) config.presencePenalty());
        }
        if (config.temperature() == 0) {
            return likeliest(logits);
        }
        if (config.topK() == 0 && config.topP() == 1 && config.minP() == 0) {
            return drawFromAll(logits);
        }
        Candidates candidates = candidates(logits);
        return candidates.ids[draw(candidates.probabilities)];
    }

    /** The same draw without any filter, for which as a rule only the likeliest tokens need to be put in order. */
    private int drawFromAll(float[] logits) {
        float largest = Float.NEGATIVE_INFINITY;
        for (float logit : logits) {
            largest = logit > largest ? logit : largest;
        }
        double highest = largest;
        double sum = 0;
        for (float logit : logits) {
            sum += exp((logit - highest) / config.temperature());
        }
        if (!(sum >= 1 && sum <= logits.length)) {
            throw new NonFiniteException("the model's logits are not finite numbers");
        }
        double at = random.nextDouble() * sum;
        for (int k = Math.min(LIKELIEST, logits.length); ; k = logits.length) {
            int[] ids = top(logits, k);
            double left = at;
            int last = ids[0];
            for (int id : ids) {
                double weight = exp((logits[id] - highest) / config.temperature());
                if (weight == 0) {
                    return last;
                }
                last = id;
                left -= weight;
                if (left < 0) {
                    return id;
                }
            }
            if (k == logits.length) {
                return last;
            }
        }
    }

    /**
     * e<sup>x</sup> for x of at most 0, within 1e-12 of it, and 0 where it is below 1e-304; several times as fast as {@link Math#exp}.
     * NaN stays NaN. x = k ln 2 + r with |r| of at most ln 2 / 2, and of e<sup>r</sup> the first terms of its series.
     */
    static double exp(double x) {
        if (x < -700) {
            return 0;
        }
        double shifted = x * LOG2_E + ROUNDS; // whose last bits are k
        double k = shifted - ROUNDS;
        double r = x - k * LN_2_UPPER - k * LN_2_LOWER;
        double high = 1.0 / 5040 + r * (1.0 / 40320 + r * (1.0 / 362880 + r * (1.0 / 3628800 + r * (1.0 / 39916800))));
        double power =
                1 + r * (1 + r * (0.5 + r * (1.0 / 6 + r * (1.0 / 24 + r * (1.0 / 120 + r * (1.0 / 720 + r * high))))));
        return power * Double.longBitsToDouble((Double.doubleToRawLongBits(shifted) + 1023) << 52);
    }

    /** What is drawn from: tokens, likeliest first, and their probabilities, which add up to 1. */
    record Candidates(int[] ids, double[] probabilities) {}

    Candidates candidates(float[] logits) {
        int k = config.topK() == 0 ? logits.length : Math.min(config.topK(), logits.length);
        int[] ids = top(logits, k);
        double[] weights = new double[k];
        double sum = 0;
        double highest = logits[ids[0]];
        for (int i = 0; i < k; i++) {
            weights[i] = Math.exp(logits[ids[i]] - highest);
            sum += weights[i];
        }
        if (!(sum >= 1 && sum <= k)) {
            throw new NonFiniteException("the model's logits are not finite numbers");
        }
        int kept = k;
        if (config.topP() < 1) {
            double reached = 0;
            kept = 0;
            while (kept < k && reached < config.topP() * sum) {
                reached += weights[kept++];
            }
        }
        // The likeliest token has weight 1. What has none, as a token that is masked, is not drawn by a sum that is
        // rounded.
        while (kept > 1 && (weights[kept - 1] == 0 || weights[kept - 1] < config.minP())) {
            kept--;
        }
        double[] probabilities = new double[kept];
        double total = 0;
        for (int i = 0; i < kept; i++) {
            probabilities[i] = Math.exp((logits[ids[i]] - highest) / config.temperature());
            total += probabilities[i];
        }
        for (int i = 0; i < kept; i++) {
            probabilities[i] /= total;
        }
        return new Candidates(Arrays.copyOf(ids, kept), probabilities);
    }

    void penalize(float[] logits, int[] seen, int count) {
        if (config.repetitionPenalty() == 1) {
            return;
        }
        int from = config.repetitionWindow() < 0 ? 0 : Math.max(0, count - config.repetitionWindow());
        Set<Integer> done = new HashSet<>();
        for (int i = from; i < count; i++) {
            int id = seen[i];
            if (done.add(id)) {
                logits[id] *= (float) (logits[id] > 0 ? 1 / config.repetitionPenalty() : config.repetitionPenalty());
            }
        }
    }

    private int draw(double[] probabilities) {
        double at = random.nextDouble();
        for (int i = 0; i < probabilities.length - 1; i++) {
            at -= probabilities[i];
            if (at < 0) {
                return i;
            }
        }
        return probabilities.length - 1;
    }

    private static int likeliest(float[] logits) {
        int best = 0;
        for (int i = 1; i < logits.length; i++) {
            if (logits[i] > logits[best]) {
                best = i;
            }
        }
        if (!Float.isFinite(logits[best])) {
            throw new NonFiniteException("the model's logits are not finite numbers");
        }
        return best;
    }

    /** Ids of the k largest logits, largest first. */
    static int[] top(float[] logits, int k) {
        // A min-heap of the best so far, by keys that order as (logit, lower id first).
        long[] heap = new long[k];
        for (int i = 0; i < k; i++) {
            heap[i] = key(logits[i], i);
        }
        if (k < logits.length) {
            for (int i = k / 2 - 1; i >= 0; i--) {
                siftDown(heap, i);
            }
            for (int i = k; i < logits.length; i++) {
                long key = key(logits[i], i);
                if (key > heap[0]) {
                    heap[0] = key;
                    siftDown(heap, 0);
                }
            }
        }
        Arrays.sort(heap);
        int[] ids = new int[k];
        for (int i = 0; i < k; i++) {
            ids[i] = Integer.MAX_VALUE - (int) heap[k - 1 - i];
        }
        return ids;
    }

    /** Upper half: the float's bits, made to order like the float. Lower half: smaller for higher ids. */
    private static long key(float logit, int id) {
        int bits = Float.floatToIntBits(logit);
        int ordered = bits ^ (bits >> 31 & 0x7fffffff);
        return (long) ordered << 32 | Integer.MAX_VALUE - id;
    }

    private static void siftDown(long[] heap, int i) {
        while (2 * i + 1 < heap.length) {
            int child = 2 * i + 1;
            if (child + 1 < heap.length && heap[child + 1] < heap[child]) {
                child++;
            }
            if (heap[i] <= heap[child]) {
                return;
            }
            long swapped = heap[i];
            heap[i] = heap[child];
            heap[child] = swapped;
            i = child;
        }
    }
}
