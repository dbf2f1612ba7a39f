package dev.lorica.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.Labels;
import dev.lorica.data.RecordKind;
import dev.lorica.data.TeacherLogProbs;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.exceptions.NonFiniteException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** What holds of runs whatever they make small: that they go on to the very bytes, stop at what is no number, and add up. */
class ObjectiveRunsTest {
    private static Model model;
    private static List<DataRecord> questions;

    @TempDir
    Path folder;

    @BeforeAll
    static void load() {
        model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.F32, 2));
        questions = Dataset.load(TestModels.austen().resolveSibling("data/pride_and_prejudice_train.json"))
                .head(9);
    }

    @AfterAll
    static void close() {
        model.close();
    }

    /** @param inWords {@code dpo} */
    private record Case(String inWords, Objective objective, boolean precomputes) {
        @Override
        public String toString() {
            return inWords;
        }
    }

    private static Case of(Objective objective) {
        return new Case(objective.name(), objective, false);
    }

    static Stream<Case> all() {
        return Stream.concat(
                additive(),
                Stream.of(
                        of(Objective.orpo(0.1)),
                        of(Objective.cpo(0.1, Objective.CpoLoss.SIGMOID, 0, 1, 0)),
                        of(Objective.kto(0.1)),
                        of(Objective.grpo(
                                GrpoConfig.builder()
                                        .numGenerations(4)
                                        .maxCompletionLength(6)
                                        .beta(0.05)
                                        .build(),
                                RewardFunction.of(
                                        "brief", answer -> -answer.text().length())))));
    }

    /**
     * Those of which a unit does not depend on those beside it, as TRL has them. The loss of the better answers, of orpo and cpo, is a
     * mean over the tokens of a micro-batch, the divergence of kto is from prompts with the answers beside them, and grpo's answers are
     * drawn.
     */
    static Stream<Case> additive() {
        return Stream.of(
                new Case("weighted sft", Objective.sft(), false),
                of(Objective.dpo(0.1)),
                new Case("dpo with a reference that is kept", Objective.dpo(0.1), true),
                of(Objective.simpo(2, 0.5)),
                of(Objective.cpo(0.1, Objective.CpoLoss.HINGE, 0, 0, 0)),
                of(Objective.reward(0.01)),
                of(Objective.distill(0.5)));
    }

    private static TokenizedDataset data(Objective objective) {
        List<DataRecord> records = new ArrayList<>();
        for (int i = 0; i + 1 < questions.size(); i++) {
            String prompt = questions.get(i).prompt();
            String good = questions.get(i).response();
            records.add(
                    switch (objective.records()) {
                        case PAIRS ->
                            DataRecord.pair(prompt, good, questions.get(i + 1).response());
                        case LABELLED -> DataRecord.of(prompt, good).withValue(i % 2);
                        default -> DataRecord.of(prompt, good).withWeight(i % 2 == 0 ? 1 : 0.25f);
                    });
        }
        Dataset data = Dataset.of(records);
        DataConfig config = DataConfig.ofMaxLength(256);
        return objective.records() == RecordKind.PROMPTS
                ? TokenizedDataset.prompts(data, model.tokenizer(), config)
                : TokenizedDataset.of(data, model.tokenizer(), config);
    }

    private static TrainingConfig.Builder config() {
        return TrainingConfig.builder()
                .batchSize(2)
                .maxSteps(5)
                .learningRate(1e-3)
                .adamEpsilon(1e-3)
                .schedulerType(SchedulerType.COSINE)
                .maxLength(256)
                .loggingSteps(1);
    }

    private static final class Run {
        private final Map<Integer, Map<String, Double>> metrics = new TreeMap<>();
        private final Map<Integer, Double> losses = new TreeMap<>();
        private final List<float[]> adapter = new ArrayList<>();
    }

    /**
     * @param from   a checkpoint; {@code null}: begins anew
     * @param stopAt a step; 0: none
     */
    private Run run(Case given, TrainingConfig config, double dropout, Path checkpoints, Path from, int stopAt) {
        Objective objective = given.objective();
        TokenizedDataset data = data(objective);
        Run run = new Run();
        try (Adapter adapter = Adapter.create(
                        model,
                        LoraConfig.builder().rank(2).dropout((float) dropout).build(),
                        objective instanceof Reward ? Labels.reward() : null);
                TeacherLogProbs said = objective.usesTeacher()
                        ? new Teacher(model, null, 8, 1).logProbs(data, folder.resolve("teacher"))
                        : null) {
            Trainer trainer = new Trainer(model, adapter, config, objective)
                    .checkpoints(checkpoints)
                    .precomputeReference(given.precomputes())
                    .resume(from == null ? null : Checkpoint.open(from));
            trainer.addListener(new TrainerListener() {
                @Override
                public void onLog(TrainingProgress progress) {
                    run.metrics.put(progress.step(), progress.metrics());
                    run.losses.put(progress.step(), progress.loss());
                    if (progress.step() == stopAt) {
                        trainer.requestStop();
                    }
                }
            });
            trainer.train(said == null ? data : data.withTeacher(said));
            for (int i = 0; i < adapter.tensors().size(); i++) {
                run.adapter.add(adapter.values(i));
            }
        }
        return run;
    }

    @ParameterizedTest
    @MethodSource("all")
    void whatWasStoppedEndsInTheVeryBytes(Case given) {
        TrainingConfig config = config().build();
        Run whole = run(given, config, 0.1, null, null, 0);
        Path parts = folder.resolve("parts");
        run(given, config, 0.1, parts, null, 2);
        Run rest = run(given, config, 0.1, null, parts.resolve("checkpoint-2"), 0);
        assertThat(whole.metrics).hasSize(5);
        assertThat(rest.metrics).containsOnlyKeys(3, 4, 5);
        rest.metrics.forEach((step, metrics) -> assertThat(metrics).isEqualTo(whole.metrics.get(step)));
        rest.losses.forEach((step, loss) -> assertThat(loss).isEqualTo(whole.losses.get(step)));
        for (int i = 0; i < whole.adapter.size(); i++) {
            assertThat(rest.adapter.get(i)).as("tensor %d", i).isEqualTo(whole.adapter.get(i));
        }
    }

    @ParameterizedTest
    @MethodSource("additive")
    void accumulationChangesNothing(Case given) {
        Run whole = run(given, config().build(), 0, null, null, 0);
        Run parts =
                run(given, config().batchSize(1).gradientAccumulationSteps(2).build(), 0, null, null, 0);
        parts.losses.forEach((step, loss) -> assertThat(loss).isCloseTo(whole.losses.get(step), within(1e-5)));
        for (int i = 0; i < whole.adapter.size(); i++) {
            assertThat(parts.adapter.get(i)).as("tensor %d", i).containsExactly(whole.adapter.get(i), within(1e-5f));
        }
    }

    @ParameterizedTest
    @MethodSource("all")
    void whatIsNoNumberEndsTheRunAndLosesNothing(Case given) {
        Path checkpoints = folder.resolve("checkpoints");
        TrainingConfig wild = config().learningRate(1e38)
                .schedulerType(SchedulerType.CONSTANT)
                .maxGradNorm(0)
                .saveSteps(1)
                .build();
        assertThatThrownBy(() -> run(given, wild, 0, checkpoints, null, 0))
                .isInstanceOf(NonFiniteException.class)
                .hasMessageMatching("(?s)(training step [1-5] of 5|after step [1-5] of 5).*not finite.*"
                        + "try a lower learning rate \\(it is .*\\) or a longer warm-up.*");
        // Whatever was written before is whole.
        Checkpoint.list(checkpoints).forEach(Checkpoint::open);
    }

    @ParameterizedTest
    @MethodSource("references")
    void aReferenceThatIsKeptSaysWhatOneSaysThatIsAskedEachTime(Objective objective) {
        Run asked = run(new Case("asked", objective, false), config().build(), 0.1, null, null, 0);
        Run kept = run(new Case("kept", objective, true), config().build(), 0.1, null, null, 0);
        kept.losses.forEach((step, loss) -> assertThat(loss).isCloseTo(asked.losses.get(step), within(1e-6)));
        for (int i = 0; i < asked.adapter.size(); i++) {
            assertThat(kept.adapter.get(i)).as("tensor %d", i).containsExactly(asked.adapter.get(i), within(1e-6f));
        }
    }

    static Stream<Objective> references() {
        return Stream.of(Objective.dpo(0.1), Objective.kto(0.1));
    }
}
