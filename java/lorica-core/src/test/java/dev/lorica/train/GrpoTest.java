package dev.lorica.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.data.Batch;
import dev.lorica.data.DataRecord;
import dev.lorica.exceptions.RewardException;
import dev.lorica.train.Objective.GrpoLoss;
import dev.lorica.train.Objective.ImportanceSampling;
import dev.lorica.train.RewardFunction.Completion;
import java.io.IOException;
import java.io.InputStream;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

/** Group relative policy optimization by itself, next to what {@code scripts/make_grpo_goldens.py} asked TRL for. */
class GrpoTest {
    private static final RewardFunction NOTHING = RewardFunction.of("nothing", completion -> 0);

    private static JsonNode golden;

    @BeforeAll
    static void load() throws IOException {
        golden = goldens();
    }

    private static JsonNode goldens() throws IOException {
        try (InputStream file = GrpoTest.class.getResourceAsStream("/grpo.json")) {
            return new ObjectMapper().readTree(file);
        }
    }

    static Stream<String> cases() throws IOException {
        Iterable<String> names = goldens().get("cases")::fieldNames;
        return StreamSupport.stream(names.spliterator(), false);
    }

    private static double[] doubles(JsonNode array) {
        return StreamSupport.stream(array.spliterator(), false)
                .mapToDouble(x -> x.isNull() ? Double.NaN : x.asDouble())
                .toArray();
    }

    /** The given numbers of all answers in a row, with a place before each answer for its prompt. */
    private static float[] packed(JsonNode rows) {
        int n = 0;
        for (JsonNode row : rows) {
            n += row.size() + 1;
        }
        float[] all = new float[n];
        int at = 0;
        for (JsonNode row : rows) {
            for (int i = 0; i < row.size(); i++) {
                all[at + i] = (float) row.get(i).asDouble();
            }
            at += row.size() + 1;
        }
        return all;
    }

    private static Batch batch(JsonNode rows, float[] advantages, float[] old, int mostLearned) {
        int[] lengths =
                IntStream.range(0, rows.size()).map(s -> rows.get(s).size() + 1).toArray();
        int total = Arrays.stream(lengths).sum();
        int[] labels = new int[total];
        int at = 0;
        for (int length : lengths) {
            // A token of the prompt predicts the first of the answer.
            Arrays.fill(labels, at, at + length - 1, length - 1 <= mostLearned ? 7 : Batch.IGNORE);
            labels[at + length - 1] = Batch.IGNORE;
            at += length;
        }
        return Batch.of(new int[total], labels, lengths).with(new Batch.Notes(1, advantages, null, null).withOld(old));
    }

    private static GrpoConfig config(JsonNode settings) {
        return GrpoConfig.builder()
                .numGenerations(golden.get("generations").asInt())
                .maxCompletionLength(golden.get("max_completion_length").asInt())
                .lossType(ObjectiveSetting.LOSS_TYPE.parsed(
                        "grpo", settings.get("loss_type").asText()))
                .beta(settings.get("beta").asDouble())
                .epsilon(settings.get("epsilon_low").asDouble())
                .epsilonHigh(settings.get("epsilon_high").asDouble())
                .numIterations(settings.get("iterations").asInt())
                .scaleRewards(ObjectiveSetting.SCALE_REWARDS.parsed(
                        "grpo", settings.get("scale_rewards").asText()))
                .maskTruncatedCompletions(
                        settings.get("mask_truncated_completions").asBoolean())
                .delta(settings.get("delta").asDouble())
                .importanceSamplingLevel(ObjectiveSetting.IMPORTANCE_SAMPLING_LEVEL.parsed(
                        "grpo", settings.get("importance_sampling_level").asText()))
                .useBiasCorrectionKl(settings.get("use_bias_correction_kl").asBoolean())
                .build();
    }

    @ParameterizedTest
    @MethodSource("cases")
    void advantagesLossGradientAndMetricsAreThoseOfTrl(String name) {
        JsonNode expected = golden.get("cases").get(name);
        GrpoConfig config = config(expected.get("settings"));
        double[][] rewards = {
            doubles(golden.get("rewards").get(0)), doubles(golden.get("rewards").get(1))
        };
        Advantages advantages =
                Advantages.of(rewards, doubles(golden.get("weights")), config.numGenerations(), config.scaleRewards());
        assertThat(advantages.values()).containsExactly(doubles(expected.get("advantages")), within(2e-5));

        float[] values = new float[advantages.values().length];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) advantages.values()[i];
        }
        JsonNode rows = golden.get("logps");
        float[] old = config.numIterations() > 1 ? packed(golden.get("old")) : null;
        // What was cut off is as long as an answer may be.
        int mostLearned = config.maxCompletionLength() - (config.maskTruncatedCompletions() ? 1 : 0);
        Batch batch = batch(rows, values, old, mostLearned);
        ObjectiveResult result = new ObjectiveResult(batch.tokenCount());
        Objective objective = Objective.grpo(config, NOTHING);
        objective.score(
                new ScoredBatch(batch, packed(rows), objective.usesReference() ? packed(golden.get("ref")) : null, 0),
                result);
        assertThat(result.lossSum() / result.units())
                .isCloseTo(expected.get("loss").asDouble(), within(1e-5));
        float[] gradient = packed(expected.get("gradient"));
        for (int t = 0; t < gradient.length; t++) {
            assertThat(-result.weights()[t] / result.units()).as("token %d", t).isCloseTo(gradient[t], within(1e-5));
        }
        result.metrics().means().forEach((metric, value) -> assertThat(value)
                .as(metric)
                .isCloseTo(expected.get("metrics").get(metric).asDouble(), within(1e-5)));
        List<String> clipped = expected.get("metrics").properties().stream()
                .map(Map.Entry::getKey)
                .filter(metric -> metric.contains("clip"))
                .toList();
        assertThat(result.metrics().means()).containsKeys(clipped.toArray(String[]::new));
        assertThat(clipped.isEmpty()).isEqualTo(config.lossType() == GrpoLoss.SAPO);
        assertThat(result.metrics().means().containsKey("kl")).isEqualTo(config.beta() > 0);
        assertThat(Advantages.mean(advantages.rewards()))
                .isCloseTo(expected.get("metrics").get("reward").asDouble(), within(1e-5));
        assertThat(Advantages.deviation(advantages.rewards()))
                .isCloseTo(expected.get("metrics").get("reward_std").asDouble(), within(1e-5));
        assertThat(advantages.sameAll())
                .isEqualTo(expected.get("metrics").get("frac_reward_zero_std").asDouble());
        assertThat(Advantages.deviation(rewards[1]))
                .isCloseTo(expected.get("metrics").get("rewards/b/std").asDouble(), within(1e-5));
    }

    @ParameterizedTest
    // The bound of cispo has no gradient by design: it is compared with TRL's alone.
    @EnumSource(value = GrpoLoss.class, mode = EnumSource.Mode.EXCLUDE, names = "CISPO")
    void weightsAreTheDerivativesOfTheLoss(GrpoLoss loss) {
        for (ImportanceSampling level : ImportanceSampling.values()) {
            weightsAreTheDerivativesOfTheLoss(GrpoConfig.builder()
                    .lossType(loss)
                    .beta(0.3)
                    .numIterations(2)
                    .delta(1.6)
                    .importanceSamplingLevel(level)
                    .build());
        }
    }

    private static void weightsAreTheDerivativesOfTheLoss(GrpoConfig config) {
        Objective objective = Objective.grpo(config, NOTHING);
        JsonNode rows = golden.get("logps");
        float[] advantages = {1, -1, 0.5f, -2, 0, 1.5f, -0.5f, 1};
        Batch batch = batch(rows, advantages, packed(golden.get("old")), Integer.MAX_VALUE);
        float[] logProbs = packed(rows);
        float[] weights = score(objective, batch, logProbs).weights();
        for (int t = 0; t < logProbs.length; t++) {
            float step = 1 / 1024f;
            float[] up = logProbs.clone();
            float[] down = logProbs.clone();
            up[t] += step;
            down[t] -= step;
            double measured = (score(objective, batch, up).lossSum()
                            - score(objective, batch, down).lossSum())
                    / ((double) up[t] - down[t]);
            assertThat(-weights[t]).as("token %d", t).isCloseTo((float) measured, within(1e-4f));
        }
        assertThat(weights).isNotEqualTo(new float[weights.length]);
    }

    private static ObjectiveResult score(Objective objective, Batch batch, float[] logProbs) {
        ObjectiveResult result = new ObjectiveResult(batch.tokenCount());
        objective.score(new ScoredBatch(batch, logProbs, packed(golden.get("ref")), 0), result);
        return result;
    }

    @Test
    void settingsThatMakeNoSenseAreRefused() {
        assertThatThrownBy(() -> GrpoConfig.builder().numGenerations(1).build())
                .hasMessage("num generations is 1; it must be at least 2");
        assertThatThrownBy(() -> GrpoConfig.builder().epsilon(1).build()).hasMessageContaining("epsilon is 1.0");
        assertThatThrownBy(() -> Objective.grpo(GrpoConfig.defaults())).hasMessageContaining("rewards are none");
        assertThatThrownBy(() -> Objective.grpo(GrpoConfig.defaults(), NOTHING, NOTHING))
                .hasMessageContaining("the same name");
        assertThatThrownBy(() -> NOTHING.weighted(Double.NaN)).hasMessageContaining("reward weight is NaN");
        assertThatThrownBy(() -> ObjectiveSetting.LOSS_TYPE.parsed("grpo", "vespo"))
                .hasMessageContaining("there are grpo, bnpo, dr_grpo, dapo, cispo, sapo, luspo");
        assertThatThrownBy(() -> GrpoConfig.builder().delta(1.1).build())
                .hasMessage("delta is 1.1; it must be more than 1 + epsilon high, which is 1.2, or 0");
        assertThat(Objective.grpo(GrpoConfig.builder().beta(0.1).build(), NOTHING.weighted(2))
                        .inWords())
                .isEqualTo("grpo (num_generations 8, max_completion_length 512, loss_type dapo, scale_rewards group,"
                        + " beta 0.1, use_bias_correction_kl true, reward nothing 2.0)");
    }

    private static final List<Completion> TWO = List.of(
            new Completion(DataRecord.of("Who?", "He."), "Who?", "She \"was\".\n", 5, true),
            new Completion(DataRecord.of("Why?", ""), "Why?", "", 1, false));

    private static double[] rewards(String script) {
        return RewardFunction.command(List.of("/bin/sh", "-c", script), Duration.ofMinutes(5))
                .rewards(TWO);
    }

    @Test
    void aCommandReadsAnswersAndWritesNumbers() {
        assertThat(rewards("while read -r line; do echo \"${#line}\"; done"))
                .containsExactly(
                        "{'prompt':'Who?','completion':'She \\'was\\'.\\n','tokens':5,'ended':true,'answer':'He.'}"
                                .length(),
                        "{'prompt':'Why?','completion':'','tokens':1,'ended':false}".length());
        assertThat(rewards("echo; echo ' -1.5e3 '; echo null")).containsExactly(-1500, Double.NaN);
    }

    @Test
    void aCommandThatGivesNoRewardsIsNamedWithTheReason() {
        assertThatThrownBy(() -> rewards("echo 1"))
                .isInstanceOf(RewardException.class)
                .hasMessage(
                        "the reward command \"/bin/sh -c echo 1\" wrote 1 line for 2 answers; a line with a number is"
                                + " meant for each");
        assertThatThrownBy(() -> rewards("echo 1; echo good"))
                .hasMessageEndingWith("wrote \"good\" as line 2; a number is meant");
        assertThatThrownBy(() -> rewards("echo 1; echo Infinity")).hasMessageContaining("\"Infinity\" as line 2");
        assertThatThrownBy(() -> rewards("echo 1; echo 2; echo 'no model' >&2; exit 3"))
                .hasMessageEndingWith("ended with status 3: no model");
        assertThatThrownBy(() -> rewards("yes nonsense"))
                .isInstanceOf(RewardException.class)
                .hasMessageContaining("wrote more than 16 MiB");
        RewardFunction none = RewardFunction.command(List.of("/no/such/program"), Duration.ofSeconds(1));
        assertThatThrownBy(() -> none.rewards(TWO)).hasMessageContaining("cannot be started");
        long begun = System.nanoTime();
        RewardFunction hangs = RewardFunction.command(List.of("/bin/sh", "-c", "sleep 600"), Duration.ofMillis(300));
        assertThatThrownBy(() -> hangs.rewards(TWO)).hasMessageContaining("has not ended after 300 ms");
        assertThat(System.nanoTime() - begun).isLessThan(60_000_000_000L);
    }
}
