package dev.lorica.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluation;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.RewardException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Learning from rewards for one's own answers, on the embedded model. */
class GrpoTrainingTest {
    private static Model model;
    private static TokenizedDataset prompts;

    @TempDir
    Path folder;

    @BeforeAll
    static void load() {
        model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.AUTO, 2));
        prompts = TokenizedDataset.prompts(
                Dataset.of(List.of(
                        DataRecord.of("Who is Mr. Collins?", ""),
                        DataRecord.of("Where is Longbourn?", ""),
                        DataRecord.of("Why does Jane go to London?", ""))),
                model.tokenizer(),
                DataConfig.ofMaxLength(64));
    }

    @AfterAll
    static void close() {
        model.close();
    }

    /** The fewer commas and full stops the better; a call may fail. */
    private static final class Plain implements RewardFunction {
        private final int failsAt;
        private final List<List<Completion>> seen = new ArrayList<>();

        Plain(int failsAt) {
            this.failsAt = failsAt;
        }

        @Override
        public String name() {
            return "plain";
        }

        @Override
        public double[] rewards(List<Completion> completions) {
            if (seen.size() == failsAt) {
                throw new IllegalStateException("the judge is asleep");
            }
            seen.add(completions);
            return completions.stream()
                    .mapToDouble(completion -> -completion
                                    .text()
                                    .chars()
                                    .filter(c -> ",.;".indexOf(c) >= 0)
                                    .count()
                            - (completion.ended() ? 0 : 0.5))
                    .toArray();
        }
    }

    private static GrpoConfig brief(int iterations, double beta) {
        return GrpoConfig.builder()
                .numGenerations(4)
                .maxCompletionLength(12)
                .numIterations(iterations)
                .beta(beta)
                .build();
    }

    private static TrainingConfig.Builder config() {
        return TrainingConfig.builder()
                .batchSize(2)
                .maxSteps(5)
                .learningRate(3e-3)
                .schedulerType(SchedulerType.CONSTANT)
                .maxLength(64)
                .loggingSteps(1);
    }

    private static final class Run {
        private final Map<Integer, Map<String, Double>> metrics = new TreeMap<>();
        private final List<float[]> adapter = new ArrayList<>();
        private TrainingResult result;
        private Evaluation evaluation;
    }

    /** @param stopAt a step; 0: none */
    private Run run(TrainingConfig config, Objective objective, Path checkpoints, Path from, int stopAt) {
        Run run = new Run();
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).dropout(0.1).build())) {
            Trainer trainer = new Trainer(model, adapter, config, objective).checkpoints(checkpoints);
            if (from != null) {
                trainer.resume(Checkpoint.open(from));
            }
            trainer.addListener(new TrainerListener() {
                @Override
                public void onLog(TrainingProgress progress) {
                    run.metrics.put(progress.step(), progress.metrics());
                    if (progress.step() == stopAt) {
                        trainer.requestStop();
                    }
                }
            });
            run.result = trainer.train(prompts, null);
            run.evaluation = trainer.evaluate(prompts);
            for (int i = 0; i < adapter.tensors().size(); i++) {
                run.adapter.add(adapter.values(i));
            }
        }
        return run;
    }

    private static void same(Run resumed, Run whole) {
        assertThat(resumed.adapter.size()).isPositive().isEqualTo(whole.adapter.size());
        for (int i = 0; i < whole.adapter.size(); i++) {
            assertThat(resumed.adapter.get(i)).as("tensor %d", i).isEqualTo(whole.adapter.get(i));
        }
        resumed.metrics.forEach(
                (step, metrics) -> assertThat(metrics).as("step %d", step).isEqualTo(whole.metrics.get(step)));
        assertThat(resumed.evaluation.metrics()).isEqualTo(whole.evaluation.metrics());
    }

    @Test
    void whatIsStoppedBetweenTwoStepsWithTheSameAnswersAndWhatIsNotJudgedGoOnToTheVeryBytes() {
        GrpoConfig twice = brief(2, 0.05);
        Run whole = run(config().build(), Objective.grpo(twice, new Plain(-1)), null, null, 0);
        assertThat(whole.result.steps()).isEqualTo(5);
        assertThat(whole.metrics.get(1))
                .containsEntry("clip_ratio/region_mean", 0.0)
                .containsKey("reward");
        // The same answers once more are not drawn again, and the model is no longer the one that drew them.
        assertThat(whole.metrics.get(2)).doesNotContainKey("reward").containsKey("kl");
        assertThat(whole.metrics.get(2).get("kl")).isPositive();

        Run stopped = run(config().build(), Objective.grpo(twice, new Plain(-1)), folder.resolve("a"), null, 1);
        assertThat(stopped.result.steps()).isEqualTo(1);
        same(
                run(config().build(), Objective.grpo(twice, new Plain(-1)), null, folder.resolve("a/checkpoint-1"), 0),
                whole);

        Path lost = folder.resolve("b");
        assertThatThrownBy(() -> run(config().build(), Objective.grpo(twice, new Plain(2)), lost, null, 0))
                .isInstanceOf(RewardException.class)
                .hasMessage("the reward \"plain\" failed: java.lang.IllegalStateException: the judge is asleep; "
                        + lost.resolve("checkpoint-4") + " holds what was trained before");
        Plain again = new Plain(-1);
        same(run(config().build(), Objective.grpo(twice, again), null, lost.resolve("checkpoint-4"), 0), whole);
        // One call for the fifth step, and two for the evaluation.
        assertThat(again.seen).hasSize(3);
        assertThat(again.seen.get(0)).hasSize(8);
        assertThat(again.seen.get(1).get(5).prompt()).isEqualTo("Where is Longbourn?");
    }

    private static double reward(Run run, int step) {
        return run.metrics.get(step).get("reward");
    }

    @Test
    void answersGetBetterByWhatJudgesThem() {
        Run run = run(config().maxSteps(24).build(), Objective.grpo(brief(1, 0), new Plain(-1)), null, null, 0);
        double before = reward(run, 1) + reward(run, 2) + reward(run, 3);
        double after = reward(run, 22) + reward(run, 23) + reward(run, 24);
        assertThat(after).isGreaterThan(before + 1);
        assertThat(run.metrics.get(12))
                .containsKeys(
                        "rewards/plain/mean",
                        "rewards/plain/std",
                        "reward_std",
                        "frac_reward_zero_std",
                        "completions/mean_length",
                        "completions/clipped_ratio",
                        "completions/max_terminated_length");
    }

    @Test
    void promptsAndAnswersAreToldApart() {
        TokenizedDataset answers = TokenizedDataset.of(
                Dataset.of(List.of(DataRecord.of("Who?", "He."))), model.tokenizer(), DataConfig.ofMaxLength(64));
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            assertThatThrownBy(() -> new Trainer(
                                    model, adapter, config().build(), Objective.grpo(brief(1, 0), new Plain(-1)))
                            .train(answers))
                    .isInstanceOf(InvalidArgumentException.class)
                    .hasMessage("the objective grpo learns from prompts alone, and the data hold single answers");
            assertThatThrownBy(() -> new Trainer(model, adapter, config().build()).train(prompts))
                    .hasMessage("the objective sft learns from single answers, and the data hold prompts alone");
        }
        assertThat(prompts.isPrompts()).isTrue();
        assertThat(prompts.report().trainedTokens()).isZero();
        TokenizedDataset.Split split = prompts.split(0.3, 1);
        assertThat(split.train().isPrompts()).isTrue();
        assertThat(TokenizedDataset.concat(List.of(split.train(), split.eval())).size())
                .isEqualTo(3);
    }
}
