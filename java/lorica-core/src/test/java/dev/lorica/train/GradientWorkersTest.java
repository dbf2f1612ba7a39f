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
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.Packer;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluation;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.MemoryException;
import dev.lorica.exceptions.NonFiniteException;
import dev.lorica.generate.BatchGenerator;
import dev.lorica.generate.GenerationResult;
import dev.lorica.train.GradientTree.Node;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BooleanSupplier;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** The seam that clusters stand behind, with workers of this process. */
class GradientWorkersTest {
    private static Model model;
    private static TokenizedDataset examples;

    @BeforeAll
    static void load() {
        model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.F32, 2));
        examples = TokenizedDataset.of(
                Dataset.of(IntStream.range(0, 13)
                        .mapToObj(i -> DataRecord.of(
                                "Who is " + "very ".repeat(i % 4) + "old, number " + i + "?", "Mr. Bennet, " + i + "."))
                        .toList()),
                model.tokenizer(),
                DataConfig.ofMaxLength(128));
    }

    @AfterAll
    static void close() {
        model.close();
    }

    /** So many workers, which come one after another, in an order of their own. */
    private static final class InProcess implements GradientWorkers {
        private final int count;
        private final List<GradientWorker> workers = new ArrayList<>();
        private final List<Adapter> adapters = new ArrayList<>();
        int closed;

        InProcess(int count) {
            this.count = count;
        }

        @Override
        public void open(Adapter adapter, TrainingConfig config, Objective objective, BatchShape shape) {
            for (int i = 0; i < count; i++) {
                Adapter own = lora();
                adapters.add(own);
                workers.add(new GradientWorker(own, config, objective, shape));
            }
        }

        @Override
        public Gradients compute(float[] parameters, List<Batch> group, long first, Watch watch) {
            workers.forEach(worker -> worker.setParameters(parameters));
            Map<Node, Gradients> known = new HashMap<>();
            float[][] logProbs = new float[group.size()][];
            List<Node> shares = new ArrayList<>(GradientTree.shares(group.size(), count));
            Collections.reverse(shares);
            for (Node share : shares) {
                GradientWorker worker = workers.get(known.size() % count);
                for (Node node : GradientTree.nodes(group.size(), share)) {
                    known.put(
                            node,
                            GradientTree.sum(
                                    node,
                                    leaf -> {
                                        if (leaf.size() > 1) {
                                            return null;
                                        }
                                        Gradients one = worker.compute(group.get(leaf.from()), first + leaf.from());
                                        logProbs[leaf.from()] = worker.logProbs();
                                        return one;
                                    },
                                    Gradients::plus));
                }
            }
            for (int i = 0; i < group.size(); i++) {
                if (!watch.begins(i)) {
                    return null;
                }
                if (logProbs[i] != null) {
                    watch.drewWith(i, logProbs[i]);
                }
                watch.ends(i);
            }
            return GradientTree.sum(new Node(0, group.size()), known::get, Gradients::plus);
        }

        @Override
        public List<List<GenerationResult>> generate(
                float[] parameters, List<List<BatchGenerator.Request>> calls, BooleanSupplier stop) {
            List<List<GenerationResult>> texts = new ArrayList<>(Collections.nCopies(calls.size(), null));
            for (int i = calls.size() - 1; i >= 0; i--) {
                GradientWorker worker = workers.get(i % count);
                worker.setParameters(parameters);
                texts.set(i, worker.generate(calls.get(i), stop));
            }
            return texts;
        }

        @Override
        public void close() {
            workers.forEach(GradientWorker::close);
            adapters.forEach(Adapter::close);
            workers.clear();
            closed++;
        }
    }

    private static Adapter lora() {
        return Adapter.create(
                model, LoraConfig.builder().rank(4).alpha(8).dropout(0.2).build());
    }

    private static TrainingConfig.Builder config() {
        return TrainingConfig.builder().batchSize(2).learningRate(1e-3).neftuneNoiseAlpha(5);
    }

    private static List<float[]> trained(GradientWorkers workers, TrainingConfig config, List<Double> losses) {
        try (Adapter adapter = lora()) {
            Trainer trainer = new Trainer(model, adapter, config).workers(workers);
            trainer.addListener(new TrainerListener() {
                @Override
                public void onStep(TrainingProgress progress) {
                    losses.add(progress.loss());
                }
            });
            trainer.train(examples);
            return IntStream.range(0, adapter.tensors().size())
                    .mapToObj(adapter::values)
                    .toList();
        }
    }

    private static void assertSame(List<float[]> one, List<float[]> other) {
        assertThat(one).hasSameSizeAs(other);
        for (int i = 0; i < one.size(); i++) {
            assertThat(one.get(i)).containsExactly(other.get(i));
        }
    }

    @Test
    void ofOneMicroBatchPerStepTheyMakeTheBytesOfTheLocalTrainer() {
        TrainingConfig config = config().epochs(2).build();
        InProcess workers = new InProcess(1);

        assertSame(trained(workers, config, new ArrayList<>()), trained(null, config, new ArrayList<>()));
        assertThat(workers.closed).isEqualTo(1);
    }

    @Test
    void howManyTheyAreChangesNoByteAndTheLocalLossesAreThoseOfTheTree() {
        TrainingConfig config =
                config().maxSteps(8).gradientAccumulationSteps(6).build();
        List<Double> alone = new ArrayList<>();
        List<Double> three = new ArrayList<>();
        List<Double> local = new ArrayList<>();

        assertSame(trained(new InProcess(1), config, alone), trained(new InProcess(3), config, three));
        trained(null, config, local);

        assertThat(three).containsExactlyElementsOf(alone).hasSize(8);
        for (int step = 0; step < 8; step++) {
            assertThat(three.get(step)).as("step %d", step + 1).isCloseTo(local.get(step), within(1e-5));
        }
    }

    @Test
    void microBatchesAreNumberedAsSessionsNumberThemThemselves() {
        TrainingConfig config = config().epochs(2)
                .gradientAccumulationSteps(3)
                .schedulerType(SchedulerType.CONSTANT)
                .shuffle(false)
                .build();
        List<float[]> byLoop = trained(null, config, new ArrayList<>());

        Packer.Batches batches = Trainer.batches(config, examples, 0);
        try (Adapter adapter = lora();
                LocalSession session = new LocalSession(adapter, config, BatchShape.of(batches))) {
            for (int epoch = 0; epoch < 2; epoch++) {
                for (int begin = 0; begin < batches.size(); begin += 3) {
                    long trained = 0;
                    for (Batch batch : batches.subList(begin, Math.min(begin + 3, batches.size()))) {
                        trained += session.forwardBackward(batch).trained();
                    }
                    session.optimizerStep(
                            config.learningRate(), config.weightDecay(), 1.0 / trained, config.maxGradNorm());
                }
            }
            assertSame(
                    IntStream.range(0, adapter.tensors().size())
                            .mapToObj(adapter::values)
                            .toList(),
                    byLoop);
        }
    }

    @Test
    void whatIsNotFiniteIsRefusedWithTheExamplesOfItsMicroBatch() {
        GradientWorkers failing = new GradientWorkers() {
            @Override
            public void open(Adapter adapter, TrainingConfig config, Objective objective, BatchShape shape) {}

            @Override
            public Gradients compute(float[] parameters, List<Batch> group, long first, Watch watch) {
                for (int i = 0; i < group.size(); i++) {
                    watch.begins(i);
                }
                watch.fails(1);
                throw new NonFiniteException("host seven: the loss is NaN");
            }

            @Override
            public void close() {}
        };
        TrainingConfig config =
                config().gradientAccumulationSteps(3).shuffle(false).build();

        assertThatThrownBy(() -> trained(failing, config, new ArrayList<>()))
                .isInstanceOf(NonFiniteException.class)
                .hasMessageContaining("training step 1 of 9, examples 3 (")
                .hasMessageContaining("), 4 (")
                .hasMessageNotContaining("more")
                .hasMessageContaining("host seven: the loss is NaN");
    }

    @Test
    void aStopGivesUpTheGroup() {
        try (Adapter adapter = lora()) {
            Trainer trainer = new Trainer(model, adapter, config().epochs(1).build()).workers(new InProcess(2));
            trainer.addListener(new TrainerListener() {
                @Override
                public void onStep(TrainingProgress progress) {
                    if (progress.step() == 2) {
                        trainer.requestStop();
                    }
                }
            });
            TrainingResult result = trainer.train(examples);
            assertThat(result.stopped()).isTrue();
            assertThat(result.steps()).isEqualTo(2);
        }
    }

    private static TokenizedDataset prompts() {
        return TokenizedDataset.prompts(
                Dataset.of(IntStream.range(0, 6)
                        .mapToObj(i -> DataRecord.of("Who is " + "very ".repeat(i % 3) + "old, number " + i + "?", ""))
                        .toList()),
                model.tokenizer(),
                DataConfig.ofMaxLength(64));
    }

    /** Two steps with the same answers, held to the reference; what judges them cannot be sent anywhere. */
    private static Objective grpo() {
        Object here = new Object();
        return Objective.grpo(
                GrpoConfig.builder()
                        .numGenerations(3)
                        .maxCompletionLength(10)
                        .numIterations(2)
                        .beta(0.05)
                        .build(),
                RewardFunction.of(
                        "commas",
                        one -> here.hashCode() * 0
                                - one.text()
                                        .chars()
                                        .filter(c -> ",.;".indexOf(c) >= 0)
                                        .count()
                                - one.tokens() / 100.0));
    }

    private record Learned(List<float[]> adapter, List<Map<String, Double>> metrics, Map<String, Double> evaluation) {}

    private static Learned learned(GradientWorkers workers) {
        List<Map<String, Double>> metrics = new ArrayList<>();
        Map<String, Double> evaluation = new HashMap<>();
        TrainingConfig config = config().maxSteps(4)
                .gradientAccumulationSteps(3)
                .evalStrategy(IntervalStrategy.STEPS)
                .evalSteps(4)
                .build();
        try (Adapter adapter = lora()) {
            Trainer trainer = new Trainer(model, adapter, config, grpo()).workers(workers);
            trainer.addListener(new TrainerListener() {
                @Override
                public void onStep(TrainingProgress progress) {
                    metrics.add(progress.metrics());
                }

                @Override
                public void onEvaluate(int step, Evaluation result) {
                    evaluation.putAll(result.metrics());
                }
            });
            trainer.train(prompts(), prompts());
            return new Learned(
                    IntStream.range(0, adapter.tensors().size())
                            .mapToObj(adapter::values)
                            .toList(),
                    metrics,
                    evaluation);
        }
    }

    @Test
    void answersThatTheyDrawAreTheSameHoweverManyTheyAreAndThoseOfOneMachine() {
        Learned alone = learned(new InProcess(1));
        Learned three = learned(new InProcess(3));
        Learned local = learned(null);

        assertSame(three.adapter(), alone.adapter());
        assertThat(three.metrics()).isEqualTo(alone.metrics()).hasSize(4);
        assertThat(three.evaluation()).isEqualTo(alone.evaluation()).containsKey("reward");
        // Of the same answers once more nothing is drawn, and the model is no longer the one that drew them.
        assertThat(three.metrics().get(1)).doesNotContainKey("reward").containsKey("kl");
        for (int step = 0; step < 4; step++) {
            Map<String, Double> here = local.metrics().get(step);
            three.metrics()
                    .get(step)
                    .forEach((name, value) -> assertThat(value).as(name).isCloseTo(here.get(name), within(1e-5)));
        }
        for (int i = 0; i < local.adapter().size(); i++) {
            assertThat(three.adapter().get(i)).containsExactly(local.adapter().get(i), within(1e-4f));
        }
    }

    @Test
    void grpoIsRefusedByThoseThatDrawNoAnswers() {
        GradientWorkers computing = new GradientWorkers() {
            @Override
            public void open(Adapter adapter, TrainingConfig config, Objective objective, BatchShape shape) {}

            @Override
            public Gradients compute(float[] parameters, List<Batch> group, long first, Watch watch) {
                throw new AssertionError();
            }

            @Override
            public void close() {}
        };
        assertThatThrownBy(() -> learned(computing))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("these workers draw no answers");
    }

    @Test
    void theyPlanWhatTheyTakeWhichIsWithoutAnOptimizer() {
        BatchShape shape = BatchShape.of(Packer.inOrder(examples, 2));
        try (Adapter adapter = lora()) {
            TrainingConfig.Builder config = config().recomputation(Recomputation.OFF);
            MemoryPlan whole = LocalSession.plan(adapter, config.build(), shape);
            MemoryPlan plan = GradientWorker.plan(adapter, config.build(), shape);
            assertThat(plan.optimizer()).isZero();
            assertThat(plan.total())
                    .isEqualTo(whole.total() - 2 * 4 * adapter.info().parameters());
            TrainingConfig justEnough = config.memoryLimit(plan.total()).build();
            assertThatThrownBy(() -> new LocalSession(adapter, justEnough, shape).close())
                    .isInstanceOf(MemoryException.class);
            new GradientWorker(adapter, justEnough, Objective.sft(), shape).close();
            TrainingConfig tooLittle = config.memoryLimit(plan.total() / 2).build();
            assertThatThrownBy(() -> new GradientWorker(adapter, tooLittle, Objective.sft(), shape))
                    .isInstanceOf(MemoryException.class);
        }
    }

    @Test
    void anObjectiveWithoutAnswersDrawsNone() {
        try (Adapter adapter = lora();
                GradientWorker worker = new GradientWorker(
                        adapter, config().build(), Objective.sft(), BatchShape.of(Packer.inOrder(examples, 2)))) {
            assertThatThrownBy(() -> worker.generate(List.of(), () -> false))
                    .isInstanceOf(InvalidArgumentException.class)
                    .hasMessage("the objective sft draws no answers");
        }
    }
}
