package dev.lorica.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.lorica.data.Batch;
import dev.lorica.data.RecordKind;
import dev.lorica.train.Objective.CpoLoss;
import dev.lorica.train.Objective.DpoLoss;
import java.util.Arrays;
import java.util.Random;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Objectives by themselves, without a model. */
class ObjectiveTest {
    private static final int[] LENGTHS = {6, 8, 5, 7};

    static Stream<Objective> all() {
        return Stream.of(
                        Arrays.stream(DpoLoss.values())
                                .map(loss -> Objective.dpo(
                                        0.3, loss, loss == DpoLoss.ROBUST || loss == DpoLoss.EXO_PAIR ? 0.1 : 0)),
                        Arrays.stream(CpoLoss.values()).map(loss -> Objective.cpo(0.4, loss, 0.3, 0.7, 0.2)),
                        Stream.of(
                                Objective.sft(),
                                Objective.orpo(0.2),
                                Objective.simpo(2, 0.5),
                                Objective.kto(0.3, 1, 0.6)))
                .flatMap(objectives -> objectives);
    }

    /** Two pairs, or four answers; everything but the first two tokens is learned. */
    private static Batch batch(Objective objective) {
        int total = Arrays.stream(LENGTHS).sum();
        int[] tokens = new int[total];
        int[] labels = new int[total];
        boolean[] prompt = new boolean[total];
        int at = 0;
        for (int s = 0; s < LENGTHS.length; s++) {
            for (int t = 0; t < LENGTHS[s]; t++) {
                boolean last = t == LENGTHS[s] - 1;
                boolean isPrompt = t == 0;
                boolean scored = objective.scoresPrompts() && s % 2 == 0;
                labels[at + t] = last || isPrompt && !scored ? Batch.IGNORE : 1;
                prompt[at + t] = isPrompt && scored;
            }
            at += LENGTHS[s];
        }
        int perExample = objective.records() == RecordKind.PAIRS ? 2 : 1;
        return Batch.of(tokens, labels, LENGTHS)
                .with(new Batch.Notes(
                        perExample, new float[] {1, 0, 0, 1}, null, objective.scoresPrompts() ? prompt : null));
    }

    private static float[] random(long seed, int n, double scale) {
        Random random = new Random(seed);
        float[] values = new float[n];
        for (int i = 0; i < n; i++) {
            values[i] = (float) (-scale * random.nextDouble());
        }
        return values;
    }

    private static ObjectiveResult result(Objective objective, Batch batch, float[] logProbs) {
        ObjectiveResult result = new ObjectiveResult(batch.tokenCount());
        float[] reference = objective.usesReference() ? random(2, batch.tokenCount(), 3) : null;
        objective.score(new ScoredBatch(batch, logProbs, reference, 0.25), result);
        return result;
    }

    @ParameterizedTest
    @MethodSource("all")
    void weightsAreTheDerivativesOfTheLoss(Objective objective) {
        Batch batch = batch(objective);
        float[] logProbs = random(1, batch.tokenCount(), 3);
        float[] weights = result(objective, batch, logProbs).weights();
        int learned = 0;
        for (int t = 0; t < logProbs.length; t++) {
            float step = 1 / 64f;
            float[] up = logProbs.clone();
            float[] down = logProbs.clone();
            up[t] += step;
            down[t] -= step;
            double measured = (result(objective, batch, up).lossSum()
                            - result(objective, batch, down).lossSum())
                    / ((double) up[t] - down[t]);
            assertThat(-weights[t]).as("token %d", t).isCloseTo((float) measured, within(2e-4f));
            learned += batch.labels()[t] != Batch.IGNORE ? 1 : 0;
            if (batch.labels()[t] == Batch.IGNORE) {
                assertThat(weights[t]).isZero();
            }
        }
        assertThat(learned).isGreaterThan(10);
        assertThat(weights).as("something is learned").isNotEqualTo(new float[weights.length]);
    }

    @ParameterizedTest
    @MethodSource("all")
    void aUnitIsAPairOrAnAnswerAndInPlainFineTuningAToken(Objective objective) {
        Batch batch = batch(objective);
        ObjectiveResult result = result(objective, batch, random(1, batch.tokenCount(), 3));
        Set<String> names = result.metrics().means().keySet();
        if (objective == Objective.sft()) {
            assertThat(result.units()).isEqualTo(18);
            assertThat(names).isEmpty();
        } else {
            assertThat(result.units()).isEqualTo(objective.records() == RecordKind.PAIRS ? 2 : 4);
            assertThat(names).contains("rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen");
            assertThat(names.contains("kl")).isEqualTo(objective.usesKl());
        }
    }

    @Test
    void settingsThatMakeNoSenseAreRefused() {
        assertThatThrownBy(() -> Objective.dpo(0)).hasMessageContaining("beta is 0.0; it must be more than 0");
        assertThatThrownBy(() -> Objective.dpo(Double.NaN)).hasMessageContaining("beta");
        assertThatThrownBy(() -> Objective.dpo(0.1, DpoLoss.SIGMOID, 0.1)).hasMessageContaining("robust");
        assertThatThrownBy(() -> Objective.dpo(0.1, DpoLoss.EXO_PAIR, 0)).hasMessageContaining("label smoothing");
        assertThatThrownBy(() -> Objective.dpo(0.1, DpoLoss.ROBUST, 0.5)).hasMessageContaining("less than 0.5");
        assertThatThrownBy(() -> ObjectiveSetting.LOSS_TYPE.parsed("dpo", "sigmoidal"))
                .hasMessageContaining("there are sigmoid, hinge, ipo");
        assertThatThrownBy(() -> Objective.simpo(2, -1)).hasMessageContaining("simpo gamma");
        assertThat(Objective.dpo(0.1, ObjectiveSetting.LOSS_TYPE.parsed("dpo", "apo-zero"), 0)
                        .inWords())
                .isEqualTo("dpo (beta 0.1, loss_type apo_zero)");
    }

    @Test
    void promptsWithTheAnswersOfOthersAreMadeForKto() {
        int[] tokens = {1, 2, 11, 12, 3, 21, 4, 5, 6, 31, 32, 33};
        int n = Batch.IGNORE;
        int[] labels = {n, 11, 12, n, 21, n, n, n, 31, 32, 33, n};
        Batch mixed = Mismatched.of(Batch.of(tokens, labels, 4, 2, 6), 5);
        assertThat(mixed.tokens()).containsExactly(1, 2, 31, 32, 33, 3, 11, 12, 4, 5, 6, 21);
        assertThat(mixed.labels()).containsExactly(n, 31, 32, 33, n, 11, 12, n, n, n, 21, n);
        assertThat(mixed.sequenceLengths()).containsExactly(5, 3, 4);
        assertThat(Mismatched.of(Batch.of(tokens, labels, 4, 2, 6), 4).sequenceLengths())
                .containsExactly(4, 3, 4);
    }
}
