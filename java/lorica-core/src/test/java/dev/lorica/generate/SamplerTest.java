package dev.lorica.generate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.lorica.exceptions.NonFiniteException;
import java.util.Map;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

/** Logits are logarithms of simple probabilities, so that what is to come out can be worked out by hand. */
class SamplerTest {
    private static final int[] NOTHING_SEEN = {};

    @Test
    void withoutFiltersTheCandidatesAreTheSoftmaxLikeliestFirst() {
        Sampler.Candidates candidates = sampler(all()).candidates(logits(0.1, 0.4, 0.2, 0.3));

        assertThat(candidates.ids()).containsExactly(1, 3, 2, 0);
        assertThat(candidates.probabilities()).containsExactly(new double[] {0.4, 0.3, 0.2, 0.1}, within(1e-6));
    }

    @Test
    void temperatureIsAnExponentOfTheProbabilities() {
        Sampler.Candidates candidates = sampler(all().temperature(0.5)).candidates(logits(0.1, 0.4, 0.2, 0.3));

        // squares 0.16, 0.09, 0.04, 0.01, which add up to 0.3
        assertThat(candidates.probabilities())
                .containsExactly(new double[] {0.16 / 0.3, 0.09 / 0.3, 0.04 / 0.3, 0.01 / 0.3}, within(1e-6));
    }

    @Test
    void topKKeepsTheLikeliest() {
        Sampler.Candidates candidates = sampler(all().topK(2)).candidates(logits(0.1, 0.4, 0.2, 0.3));

        assertThat(candidates.ids()).containsExactly(1, 3);
        assertThat(candidates.probabilities()).containsExactly(new double[] {4 / 7.0, 3 / 7.0}, within(1e-6));
    }

    @Test
    void topKPicksTheSameTokensAsSortingEverything() {
        float[] logits = new float[5000];
        java.util.Random random = new java.util.Random(1);
        for (int i = 0; i < logits.length; i++) {
            // many equal values, both signs
            logits[i] = random.nextInt(401) / 10f - 20;
        }
        int[] sorted = IntStream.range(0, logits.length)
                .boxed()
                .sorted((a, b) -> logits[a] != logits[b] ? Float.compare(logits[b], logits[a]) : a - b)
                .mapToInt(Integer::intValue)
                .toArray();

        for (int k : new int[] {1, 2, 3, 40, 1000, 4999, 5000}) {
            assertThat(sampler(all().topK(k)).candidates(logits).ids()).isEqualTo(java.util.Arrays.copyOf(sorted, k));
        }
    }

    @Test
    void topPKeepsTheFewestThatReachIt() {
        float[] logits = logits(0.1, 0.4, 0.2, 0.3);

        assertThat(sampler(all().topP(0.3)).candidates(logits).ids()).containsExactly(1);
        assertThat(sampler(all().topP(0.6)).candidates(logits).ids()).containsExactly(1, 3);
        assertThat(sampler(all().topP(0.8)).candidates(logits).ids()).containsExactly(1, 3, 2);
        assertThat(sampler(all().topP(0.95)).candidates(logits).ids()).containsExactly(1, 3, 2, 0);
    }

    @Test
    void topPCountsWhatTopKLeft() {
        // of the two left, 0.4 / 0.7 is below 0.6, but above 0.55
        float[] logits = logits(0.1, 0.4, 0.2, 0.3);

        assertThat(sampler(all().topK(2).topP(0.6)).candidates(logits).ids()).containsExactly(1, 3);
        assertThat(sampler(all().topK(2).topP(0.55)).candidates(logits).ids()).containsExactly(1);
    }

    @Test
    void minPIsMeasuredAgainstTheLikeliest() {
        float[] logits = logits(0.1, 0.4, 0.2, 0.3);

        assertThat(sampler(all().minP(0.24)).candidates(logits).ids()).containsExactly(1, 3, 2, 0);
        assertThat(sampler(all().minP(0.45)).candidates(logits).ids()).containsExactly(1, 3, 2);
        assertThat(sampler(all().minP(0.7)).candidates(logits).ids()).containsExactly(1, 3);
        assertThat(sampler(all().minP(1)).candidates(logits).ids()).containsExactly(1);
    }

    @Test
    void filtersLookAtProbabilitiesBeforeTheTemperature() {
        Sampler.Candidates candidates =
                sampler(all().topP(0.6).temperature(100)).candidates(logits(0.1, 0.4, 0.2, 0.3));

        assertThat(candidates.ids()).containsExactly(1, 3);
    }

    @Test
    void repetitionPenaltyDividesPositiveAndMultipliesNegativeLogitsOnce() {
        float[] logits = {2, -2, 3, 0};

        sampler(all().repetitionPenalty(2)).penalize(logits, new int[] {0, 1, 0, 1, 3}, 5);

        assertThat(logits).containsExactly(1, -4, 3, 0);
    }

    @Test
    void repetitionWindowForgetsWhatIsLongerAgo() {
        float[] logits = {2, 2, 2, 2};

        sampler(all().repetitionPenalty(2).repetitionWindow(2)).penalize(logits, new int[] {0, 1, 2, 3}, 3);

        assertThat(logits).containsExactly(2, 1, 1, 2);
    }

    @Test
    void aBiasIsAddedBeforeAllElseAndAtTemperatureZeroToo() {
        GenerationConfig.Builder greedy = GenerationConfig.builder().temperature(0);

        assertThat(sampler(greedy.logitBias(Map.of(2, 5.0))).sample(new float[] {1, 2, 3, 7}, NOTHING_SEEN, 0))
                .isEqualTo(2);
        assertThat(sampler(greedy.logitBias(Map.of(3, -100.0))).sample(new float[] {1, 2, 3, 7}, NOTHING_SEEN, 0))
                .isEqualTo(2);
        assertThatThrownBy(() -> sampler(greedy.logitBias(Map.of(4, 1.0))).sample(new float[4], NOTHING_SEEN, 0))
                .hasMessageContaining("logit bias is 4; it must be in the vocabulary");
    }

    @Test
    void presenceAndFrequencyPenaltiesCountWhatWasGeneratedAndNotThePrompt() {
        int[] seen = {0, 0, 0, 1, 2, 2};
        float[] presence = {5, 5, 5, 1};
        float[] frequency = {5, 5, 5, 1};

        sampler(all().presencePenalty(1.5)).sample(presence, seen, 3, 6);
        sampler(all().frequencyPenalty(1.5)).sample(frequency, seen, 3, 6);

        assertThat(presence).containsExactly(5, 3.5f, 3.5f, 1);
        assertThat(frequency).containsExactly(5, 3.5f, 2, 1);
    }

    @Test
    void logProbsAreTheSoftmaxLikeliestFirst() {
        TokenLogProbs logProbs = TokenLogProbs.of(logits(0.1, 0.4, 0.2, 0.3), 2, 2);

        assertThat(logProbs.logProb()).isEqualTo(Math.log(0.2), within(1e-6));
        assertThat(logProbs.likeliest()).extracting(TokenLogProbs.Likely::token).containsExactly(1, 3);
        assertThat(logProbs.likeliest().get(1).logProb()).isEqualTo(Math.log(0.3), within(1e-6));
    }

    @Test
    void atTemperatureZeroTheLikeliestIsTakenWhateverTheSeed() {
        for (long seed = 0; seed < 20; seed++) {
            Sampler sampler = sampler(GenerationConfig.builder().temperature(0).seed(seed));
            assertThat(sampler.sample(logits(0.1, 0.35, 0.2, 0.35), NOTHING_SEEN, 0))
                    .isEqualTo(1);
        }
    }

    @Test
    void drawsFollowTheProbabilities() {
        Sampler sampler = sampler(all().seed(7));
        double[] probabilities = {0.1, 0.4, 0.2, 0.3};
        int draws = 40_000;
        int[] counts = new int[4];
        for (int i = 0; i < draws; i++) {
            counts[sampler.sample(logits(probabilities), NOTHING_SEEN, 0)]++;
        }
        for (int id = 0; id < 4; id++) {
            // five standard deviations of a binomial distribution
            double deviation = 5 * Math.sqrt(probabilities[id] * (1 - probabilities[id]) / draws);
            assertThat(counts[id] / (double) draws).isCloseTo(probabilities[id], within(deviation));
        }
    }

    @Test
    void theSameSeedDrawsTheSameAndAnotherDoesNot() {
        assertThat(draws(1)).isEqualTo(draws(1)).isNotEqualTo(draws(2));
    }

    @Test
    void drawsAreThoseOfTheDocumentedGenerator() {
        // SplittableRandom(42).nextDouble(): 0.74156…, 0.15991…, 0.27860…, 0.34418… over the steps 0.4, 0.7, 0.9
        Sampler sampler = sampler(all().seed(42));
        int[] drawn = IntStream.range(0, 4)
                .map(i -> sampler.sample(logits(0.1, 0.4, 0.2, 0.3), NOTHING_SEEN, 0))
                .toArray();

        assertThat(drawn).containsExactly(2, 1, 1, 1);
    }

    @Test
    void itsOwnExponentialIsThatOfTheLibrary() {
        for (double x = 0; x > -699; x -= 0.0137) {
            double expected = Math.exp(x);
            assertThat(Sampler.exp(x)).as("e^%s", x).isCloseTo(expected, within(1e-12 * expected));
        }
        assertThat(Sampler.exp(0)).isEqualTo(1);
        assertThat(Sampler.exp(-701)).isZero();
        assertThat(Sampler.exp(Double.NEGATIVE_INFINITY)).isZero();
        assertThat(Sampler.exp(Double.NaN)).isNaN();
    }

    @Test
    void refusesLogitsThatAreNoNumbers() {
        float[] logits = {1, Float.NaN, 0};

        assertThatThrownBy(() -> sampler(all()).sample(logits, NOTHING_SEEN, 0)).isInstanceOf(NonFiniteException.class);
        assertThatThrownBy(() -> sampler(GenerationConfig.builder().temperature(0))
                        .sample(new float[] {Float.NaN, Float.NaN}, NOTHING_SEEN, 0))
                .isInstanceOf(NonFiniteException.class);
    }

    private static int[] draws(long seed) {
        Sampler sampler = sampler(all().seed(seed));
        return IntStream.range(0, 100)
                .map(i -> sampler.sample(logits(0.1, 0.4, 0.2, 0.3), NOTHING_SEEN, 0))
                .toArray();
    }

    private static GenerationConfig.Builder all() {
        return GenerationConfig.builder().temperature(1).topK(0).topP(1).minP(0);
    }

    private static Sampler sampler(GenerationConfig.Builder config) {
        return new Sampler(config.build());
    }

    /** Logarithms, moved by a constant: a softmax does not see it. */
    private static float[] logits(double... probabilities) {
        float[] logits = new float[probabilities.length];
        for (int i = 0; i < logits.length; i++) {
            logits[i] = (float) (Math.log(probabilities[i]) + 3);
        }
        return logits;
    }
}
