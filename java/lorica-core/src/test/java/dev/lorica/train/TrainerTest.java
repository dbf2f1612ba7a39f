package dev.lorica.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalStateException;
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
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluation;
import dev.lorica.eval.Evaluator;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.MemoryException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.NonFiniteException;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class TrainerTest {
    private static final Dataset TEN = Dataset.of(List.of(
            DataRecord.of("Who is Mr. Collins?", "A clergyman, and cousin to Mr. Bennet."),
            DataRecord.of("Where does Mr. Bingley live?", "At Netherfield Park."),
            DataRecord.of("Who is Lady Catherine?", "Lady Catherine de Bourgh, the aunt of Mr. Darcy."),
            DataRecord.of("Whom does Jane marry?", "Mr. Bingley."),
            DataRecord.of("Whom does Lydia marry?", "Mr. Wickham, to the grief of everybody but her mother."),
            DataRecord.of("Where do the Bennets live?", "At Longbourn, in Hertfordshire."),
            DataRecord.of("Who is Charlotte Lucas?", "The friend of Elizabeth; she marries Mr. Collins."),
            DataRecord.of("Who is Georgiana?", "The sister of Mr. Darcy."),
            DataRecord.of("Where is Pemberley?", "In Derbyshire."),
            DataRecord.of("Whom does Elizabeth marry?", "Mr. Darcy.")));

    private static Model model;
    private static TokenizedDataset ten;

    @BeforeAll
    static void load() {
        model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.F32, 2));
        ten = TokenizedDataset.of(TEN, model.tokenizer(), DataConfig.ofMaxLength(128));
    }

    @AfterAll
    static void close() {
        model.close();
    }

    @Test
    void learnsWhatItIsGiven() {
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(8).alpha(16).build())) {
            Evaluation before = new Evaluator(model, adapter).evaluate(ten, 4);

            TrainingResult result = new Trainer(
                            model,
                            adapter,
                            config().epochs(4).learningRate(1e-3).build())
                    .train(ten, ten);

            assertThat(result.steps()).isEqualTo(12);
            assertThat(result.epochs()).isEqualTo(4);
            assertThat(result.stopped()).isFalse();
            assertThat(result.trainedTokens()).isEqualTo(4 * ten.report().trainedTokens());
            assertThat(result.tokens()).isEqualTo(4 * ten.report().tokens());
            assertThat(result.evaluation().loss()).isLessThan(before.loss() - 1);
            assertThat(result.evaluation().perplexity())
                    .isEqualTo(Math.exp(result.evaluation().loss()));
            assertThat(new Evaluator(model, adapter).evaluate(ten, 4).loss())
                    .isCloseTo(result.evaluation().loss(), within(1e-6));
        }
    }

    @Test
    void aModelFileThatChangesMeanwhileIsAnErrorAndNotTheEndOfTheProcess(@TempDir Path folder) throws Exception {
        assertThatThrownBy(() -> trainWhile(folder.resolve("overwritten.gguf"), file -> {
                    file.seek(file.length() - 64);
                    file.write(new byte[16]);
                }))
                .isInstanceOf(MismatchException.class)
                .hasMessageContaining("has changed since it was opened");
        assertThatThrownBy(() -> trainWhile(folder.resolve("cut.gguf"), file -> file.setLength(4096)))
                .isInstanceOf(FileAccessException.class)
                .hasMessageContaining("cut off");
    }

    private interface Damage {
        void to(RandomAccessFile file) throws IOException;
    }

    private static void trainWhile(Path copy, Damage damage) throws IOException {
        Files.copy(TestModels.austen(), copy);
        try (Model own = Model.load(copy, new ModelConfig("cpu", Precision.F32, 2));
                Adapter adapter =
                        Adapter.create(own, LoraConfig.builder().rank(2).build())) {
            Trainer trainer = new Trainer(own, adapter, config().maxSteps(3).build());
            trainer.addListener(new TrainerListener() {
                @Override
                public void onStep(TrainingProgress progress) {
                    if (progress.step() == 1) {
                        try (RandomAccessFile file = new RandomAccessFile(copy.toFile(), "rw")) {
                            damage.to(file);
                        } catch (IOException e) {
                            throw new UncheckedIOException(e);
                        }
                    }
                }
            });
            trainer.train(ten);
        }
    }

    @Test
    void aWarmUpThatIsLongerThanTheRunIsRefused() {
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            Trainer trainer = new Trainer(
                    model, adapter, config().maxSteps(3).warmupSteps(4).build());

            assertThatThrownBy(() -> trainer.plan(ten, null))
                    .isInstanceOf(InvalidArgumentException.class)
                    .hasMessageContaining("the warm-up takes 4 steps, the whole run only 3");
            assertThat(new Trainer(
                                    model,
                                    adapter,
                                    config().maxSteps(3).warmupSteps(3).build())
                            .plan(ten, null)
                            .warmupSteps())
                    .isEqualTo(3);
        }
    }

    @Test
    void listenersHearEverythingInOrder() {
        List<String> heard = new ArrayList<>();
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            Trainer trainer = new Trainer(
                    model,
                    adapter,
                    config().epochs(1.5).loggingSteps(2).evalSteps(3).build());
            trainer.addListener(new TrainerListener() {
                @Override
                public void onStart(TrainingPlan plan) {
                    // what the system has available changes all the time
                    assertThat(plan)
                            .usingRecursiveComparison()
                            .ignoringFields("memory.available")
                            .isEqualTo(trainer.plan(ten, ten));
                    heard.add("start " + plan.totalSteps());
                }

                @Override
                public void onStep(TrainingProgress progress) {
                    heard.add("step " + progress.step());
                }

                @Override
                public void onLog(TrainingProgress progress) {
                    heard.add("log " + progress.step());
                }

                @Override
                public void onEvaluate(int step, Evaluation evaluation) {
                    heard.add("evaluate " + step);
                }

                @Override
                public void onEnd(TrainingResult result) {
                    heard.add("end " + result.steps());
                }
            });
            trainer.train(ten, ten);
        }
        // 10 examples by 4 are 3 steps an epoch
        assertThat(heard)
                .containsExactly(
                        "start 5",
                        "step 1",
                        "step 2",
                        "log 2",
                        "step 3",
                        "evaluate 3",
                        "step 4",
                        "log 4",
                        "step 5",
                        "log 5",
                        "evaluate 5",
                        "end 5");
    }

    @Test
    void progressAddsUp() {
        List<TrainingProgress> steps = new ArrayList<>();
        List<TrainingProgress> logs = new ArrayList<>();
        TrainingResult result;
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            Trainer trainer = new Trainer(
                    model,
                    adapter,
                    config().epochs(2).loggingSteps(3).warmupSteps(2).build());
            trainer.addListener(new TrainerListener() {
                @Override
                public void onStep(TrainingProgress progress) {
                    steps.add(progress);
                }

                @Override
                public void onLog(TrainingProgress progress) {
                    logs.add(progress);
                }
            });
            result = trainer.train(ten);
        }
        assertThat(steps).extracting(TrainingProgress::step).containsExactly(1, 2, 3, 4, 5, 6);
        assertThat(steps.get(0).learningRate()).isZero();
        assertThat(steps.get(2).learningRate()).isEqualTo(2e-4);
        assertThat(steps).allSatisfy(p -> {
            assertThat(p.gradNorm()).isPositive();
            assertThat(p.tokensPerSecond()).isPositive();
            assertThat(p.utilization()).isBetween(1e-9, 1.0);
            assertThat(p.totalSteps()).isEqualTo(6);
        });
        assertThat(steps.get(1).epoch()).isCloseTo(2 / 3.0, within(1e-12));
        assertThat(steps.get(5).secondsRemaining()).isZero();
        // the logged loss is the mean over the tokens since the last log
        assertThat(logs).hasSize(2);
        assertThat(logs.get(1).loss()).isCloseTo(meanLoss(steps, 3, 6), within(1e-9));
        assertThat(result.loss()).isCloseTo(meanLoss(steps, 0, 6), within(1e-9));
        assertThat(result.trainedTokens()).isEqualTo(steps.get(5).trainedTokens());
    }

    @Test
    void accumulationChangesNothingButMemory() {
        Trained whole = train(config().batchSize(4).gradientAccumulationSteps(1));
        Trained halves = train(config().batchSize(2).gradientAccumulationSteps(2));
        Trained singles = train(config().batchSize(1).gradientAccumulationSteps(4));
        Trained eight = train(config().batchSize(8).gradientAccumulationSteps(1));
        Trained twoTimesFour = train(config().batchSize(2).gradientAccumulationSteps(4));

        assertThat(eight.losses).hasSize(4);
        for (int i = 0; i < 4; i++) {
            assertThat(twoTimesFour.losses.get(i)).isCloseTo(eight.losses.get(i), within(1e-4));
            assertThat(twoTimesFour.norms.get(i)).isCloseTo(eight.norms.get(i), within(1e-3));
        }

        assertThat(whole.losses).hasSize(6);
        for (Trained other : List.of(halves, singles)) {
            assertThat(other.losses).hasSize(6);
            for (int i = 0; i < 6; i++) {
                assertThat(other.losses.get(i)).isCloseTo(whole.losses.get(i), within(1e-4));
                assertThat(other.norms.get(i)).isCloseTo(whole.norms.get(i), within(1e-3));
            }
        }
    }

    @Test
    void theSameSeedGivesTheSameFileWithOneThreadAndWithTwo(@TempDir Path folder) throws Exception {
        List<byte[]> files = new ArrayList<>();
        for (int threads : new int[] {1, 2, 2}) {
            try (Model bf16 = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.AUTO, threads));
                    Adapter adapter = Adapter.create(
                            bf16, LoraConfig.builder().rank(4).dropout(0.1).build())) {
                new Trainer(bf16, adapter, config().epochs(1).build()).train(ten);
                Path out = folder.resolve("out" + files.size());
                adapter.save(out);
                files.add(Files.readAllBytes(out.resolve(Adapter.FILE_NAME)));
            }
        }
        assertThat(files.get(1)).isEqualTo(files.get(0));
        assertThat(files.get(2)).isEqualTo(files.get(0));
    }

    @Test
    void anotherSeedGivesAnotherOrder() {
        assertThat(train(config().seed(1)).losses).isNotEqualTo(train(config().seed(2)).losses);
        assertThat(train(config().seed(1).shuffle(false)).losses)
                .isEqualTo(train(config().seed(2).shuffle(false)).losses);
    }

    @Test
    void stopsWhenAskedTo() {
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            Trainer trainer = new Trainer(model, adapter, config().epochs(5).build());
            trainer.addListener(new TrainerListener() {
                @Override
                public void onStep(TrainingProgress progress) {
                    if (progress.step() == 4) {
                        trainer.requestStop();
                    }
                }
            });

            TrainingResult stopped = trainer.train(ten, ten);

            assertThat(stopped.stopped()).isTrue();
            assertThat(stopped.steps()).isEqualTo(4);
            assertThat(stopped.epochs()).isCloseTo(4 / 3.0, within(1e-12));
        }
    }

    @Test
    void aStopAskedForBeforehandIsHeeded() {
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            float[] before = adapter.values(1);
            Trainer trainer = new Trainer(model, adapter, config().build());
            trainer.requestStop();

            TrainingResult stopped = trainer.train(ten);

            assertThat(stopped.stopped()).isTrue();
            assertThat(stopped.steps()).isZero();
            assertThat(adapter.values(1)).isEqualTo(before);
        }
    }

    @Test
    void whatTrainingUsedIsSavedWithTheAdapter(@TempDir Path folder) {
        TrainingConfig config = config().epochs(1).build();
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            TrainingResult result = new Trainer(model, adapter, config).train(TEN);
            adapter.save(folder);

            try (Adapter loaded = Adapter.load(model, folder)) {
                assertThat(loaded.template()).isEqualTo(PromptTemplate.INSTRUCTION);
                assertThat(TrainingConfig.of(loaded.metadata())).isEqualTo(config);
                assertThat(TrainingResult.of(loaded.metadata())).isEqualTo(result);
                assertThat(loaded.metadata().special().eos())
                        .isEqualTo(model.tokenizer().info().eos());
            }
        }
    }

    @Test
    void thePlanIsForTheBatchesThatCome() {
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            Trainer one = new Trainer(model, adapter, config().batchSize(1).build());
            Trainer all = new Trainer(model, adapter, config().batchSize(16).build());

            assertThat(one.plan(ten, null).largestBatch())
                    .isEqualTo(ten.report().longest());
            assertThat(all.plan(ten, null).largestBatch())
                    .isEqualTo((int) ten.report().tokens());
            assertThat(all.plan(ten, null).mostSequences()).isEqualTo(10);
            MemoryPlan small = one.plan(ten, null).memory();
            MemoryPlan large = all.plan(ten, null).memory();
            assertThat(large.activations()).isGreaterThan(small.activations());
            assertThat(large.fits()).isTrue();
            assertThat(small.total())
                    .isEqualTo(small.weights()
                            + small.adapter()
                            + small.gradients()
                            + small.optimizer()
                            + small.activations()
                            + small.workspace());
        }
    }

    @Test
    void whatDoesNotFitIsRefusedBeforeTheFirstStep() {
        List<TrainingPlan> started = new ArrayList<>();
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            Trainer trainer =
                    new Trainer(model, adapter, config().memoryLimit(1 << 20).build());
            trainer.addListener(new TrainerListener() {
                @Override
                public void onStart(TrainingPlan plan) {
                    started.add(plan);
                }
            });

            assertThat(trainer.plan(ten, null).memory().fits()).isFalse();
            assertThatThrownBy(() -> trainer.train(ten))
                    .isInstanceOf(MemoryException.class)
                    .message()
                    .doesNotContain("\n");
            assertThat(started).isEmpty();
        }
    }

    @Test
    void aSessionBeyondAllMemoryIsRefusedByItsPlan() {
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            BatchShape shape = new BatchShape(1 << 24, 1, 1 << 24);

            assertThatThrownBy(() -> new LocalSession(adapter, config().build(), shape))
                    .isInstanceOf(MemoryException.class);
        }
    }

    @Test
    void batchesThatTheLibraryCannotTakeAreRefusedAndTheSessionGoesOn() {
        try (Adapter adapter =
                        Adapter.create(model, LoraConfig.builder().rank(2).build());
                LocalSession session = new LocalSession(adapter, config().build(), new BatchShape(8, 2, 8))) {
            int[] nothing = {};
            List<Batch> refused = List.of(
                    new Batch(nothing, nothing, nothing, nothing),
                    Batch.of(new int[] {1, model.info().vocabSize()}, new int[] {5, Batch.IGNORE}, 2),
                    Batch.of(new int[] {1, 2}, new int[] {-7, Batch.IGNORE}, 2),
                    Batch.of(new int[] {1, 2}, new int[] {Batch.IGNORE, Batch.IGNORE}, 2),
                    new Batch(new int[] {1, 2}, new int[] {3, Batch.IGNORE}, new int[] {-1, 0}, new int[] {2}),
                    Batch.of(new int[9], new int[9], 9),
                    Batch.of(new int[3], new int[3], 1, 1, 1));

            for (Batch batch : refused) {
                assertThatThrownBy(() -> session.forwardBackward(batch)).isInstanceOf(InvalidArgumentException.class);
            }
            assertThat(session.forwardBackward(Batch.of(new int[] {1, 2}, new int[] {3, Batch.IGNORE}, 2))
                            .trained())
                    .isEqualTo(1);
        }
    }

    @Test
    void aLossThatIsNoNumberIsNamedWithItsStep() {
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            Trainer trainer = new Trainer(
                    model, adapter, config().learningRate(1e38).maxGradNorm(0).build());

            assertThatThrownBy(() -> trainer.train(ten))
                    .isInstanceOf(NonFiniteException.class)
                    .hasMessageMatching(
                            "training step [23] of 6, examples [0-9]+ \\(\"[^\"]+\"\\), .*: the loss is not finite after "
                                    + "[12] optimizer steps; the first values that are not came out of (layer [0-7]|the embedding); try a lower learning rate \\(it is .*\\) or a longer warm-up");
        }
    }

    @Test
    void aGradientThatIsNoNumberIsNamedWithItsTensorAndChangesNothing() {
        // The loss is finite, as B is zero, but the gradient of B is not: it is of the size of A.
        try (Adapter adapter = Adapter.create(
                model,
                LoraConfig.builder()
                        .rank(2)
                        .alpha(1e6)
                        .targetModules("blk.6.attn_v")
                        .build())) {
            float[] a = adapter.values(0);
            a[0] = 3e37f;
            adapter.setValues(0, a);
            Trainer trainer = new Trainer(
                    model,
                    adapter,
                    config().batchSize(2).gradientAccumulationSteps(2).build());

            assertThatThrownBy(() -> trainer.train(ten))
                    .isInstanceOf(NonFiniteException.class)
                    .hasMessageMatching(
                            "training step 1 of 6, examples ([0-9]+ \\(\"[^\"]+\"\\),? ?){4}: the gradient is not finite in "
                                    + "step 1; the first such tensor is blk.6.attn_v.weight.lora_[ab]; nothing was updated; "
                                    + "try a lower learning rate \\(it is 0.000200\\) or a longer warm-up");
            assertThat(adapter.values(0)).isEqualTo(a);
            assertThat(adapter.values(1)).containsOnly(0);
        }
    }

    @Test
    void theLastGoodCheckpointStaysInPlace(@TempDir Path folder) {
        List<Double> losses = new ArrayList<>();
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            Trainer trainer = new Trainer(
                            model,
                            adapter,
                            config().saveSteps(1).saveTotalLimit(1).build())
                    .checkpoints(folder);
            trainer.addListener(new TrainerListener() {
                @Override
                public void onSave(int step, Path checkpoint) {
                    if (step == 3) {
                        float[] broken = adapter.values(0);
                        broken[0] = Float.NaN;
                        adapter.setValues(0, broken);
                    }
                }

                @Override
                public void onStep(TrainingProgress progress) {
                    losses.add(progress.loss());
                }
            });

            assertThatThrownBy(() -> trainer.train(ten))
                    .isInstanceOf(NonFiniteException.class)
                    .hasMessageContaining("training step 4 of 6, examples ")
                    .hasMessageContaining("came out of layer 0")
                    .hasMessageEndingWith("; " + folder.resolve("checkpoint-3") + " is as it was");
            assertThat(losses).hasSize(3).allSatisfy(loss -> assertThat(loss).isPositive());
        }
        Checkpoint last = Checkpoint.latest(folder, (path, reason) -> {}).orElseThrow();
        try (Adapter good = Adapter.load(model, last.path())) {
            assertThat(new Trainer(model, good, config().build())
                            .resume(last)
                            .train(ten)
                            .steps())
                    .isEqualTo(6);
        }
    }

    @Test
    void anEvaluationThatIsNoNumberEndsTheRunToo() {
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            Trainer trainer = new Trainer(model, adapter, config().evalSteps(2).build());
            trainer.addListener(new TrainerListener() {
                @Override
                public void onStep(TrainingProgress progress) {
                    if (progress.step() == 2) {
                        float[] broken = adapter.values(0);
                        broken[0] = Float.NaN;
                        adapter.setValues(0, broken);
                    }
                }
            });

            assertThatThrownBy(() -> trainer.train(ten, ten))
                    .isInstanceOf(NonFiniteException.class)
                    .hasMessageStartingWith(
                            "evaluation after step 2 of 6: the loss of an evaluation is not finite after 2 optimizer steps");
        }
    }

    @Test
    void theEvaluationIsWithinThePlan() {
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            TrainingConfig.Builder config =
                    config().batchSize(1).evalBatchSize(10).maxSteps(2).recomputation(Recomputation.ON);
            MemoryPlan whole =
                    new Trainer(model, adapter, config.build()).plan(ten, ten).memory();
            MemoryPlan trainingAlone =
                    new Trainer(model, adapter, config.build()).plan(ten, null).memory();
            assertThat(trainingAlone.total()).isLessThan(whole.total());

            // What the evaluation needs is refused before the first step, not found out at its end.
            Trainer refused = new Trainer(
                    model, adapter, config.memoryLimit(whole.total() - 1).build());
            assertThatThrownBy(() -> refused.train(ten, ten)).isInstanceOf(MemoryException.class);
            Trainer fits = new Trainer(
                    model, adapter, config.memoryLimit(whole.total()).build());
            assertThat(fits.train(ten, ten).evaluation().examples()).isEqualTo(10);
        }
    }

    @Test
    void anAdapterIsTrainedByOneSessionAtATime() {
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            Trainer outer = new Trainer(model, adapter, config().build());
            outer.addListener(new TrainerListener() {
                @Override
                public void onStart(TrainingPlan plan) {
                    new Trainer(model, adapter, config().build()).train(ten);
                }
            });

            assertThatThrownBy(() -> outer.train(ten)).isInstanceOf(InvalidArgumentException.class);
            // and is free again afterwards
            assertThat(new Trainer(model, adapter, config().build()).train(ten).steps())
                    .isEqualTo(6);
        }
    }

    @Test
    void closingTheAdapterDuringTrainingEndsItWithAnException() {
        Adapter adapter = Adapter.create(model, LoraConfig.builder().rank(2).build());
        Trainer trainer = new Trainer(model, adapter, config().build());
        trainer.addListener(new TrainerListener() {
            @Override
            public void onStep(TrainingProgress progress) {
                adapter.close();
            }
        });

        assertThatIllegalStateException().isThrownBy(() -> trainer.train(ten)).withMessage("the adapter is closed");
    }

    @Test
    void anAdapterOfAnotherModelIsRefused() {
        try (Model other = Model.load(TestModels.austen());
                Adapter adapter =
                        Adapter.create(other, LoraConfig.builder().rank(2).build())) {
            assertThatThrownBy(() -> new Trainer(model, adapter, config().build()))
                    .isInstanceOf(InvalidArgumentException.class);
        }
    }

    @Test
    void evaluationDoesNotDependOnTheBatchSize() {
        Evaluator base = new Evaluator(model, null);

        Evaluation singly = base.evaluate(ten, 1);
        Evaluation together = base.evaluate(ten, 10);

        assertThat(together.loss()).isCloseTo(singly.loss(), within(1e-5));
        assertThat(singly.trainedTokens()).isEqualTo(ten.report().trainedTokens());
        assertThat(singly.tokens()).isEqualTo(ten.report().tokens());
        assertThat(singly.examples()).isEqualTo(10);
        try (Adapter untrained = Adapter.create(model, LoraConfig.defaults())) {
            assertThat(new Evaluator(model, untrained).evaluate(ten, 1).loss()).isCloseTo(singly.loss(), within(1e-6));
        }
    }

    private record Trained(List<Double> losses, List<Double> norms) {}

    private static Trained train(TrainingConfig.Builder config) {
        Trained trained = new Trained(new ArrayList<>(), new ArrayList<>());
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            Trainer trainer = new Trainer(model, adapter, config.build());
            trainer.addListener(new TrainerListener() {
                @Override
                public void onStep(TrainingProgress progress) {
                    trained.losses.add(progress.loss());
                    trained.norms.add(progress.gradNorm());
                }
            });
            trainer.train(ten);
        }
        return trained;
    }

    /** Mean over the tokens of steps {@code from} to {@code to}, from their own means and token counts. */
    private static double meanLoss(List<TrainingProgress> steps, int from, int to) {
        double sum = 0;
        long before = from == 0 ? 0 : steps.get(from - 1).trainedTokens();
        long tokens = before;
        for (TrainingProgress step : steps.subList(from, to)) {
            sum += step.loss() * (step.trainedTokens() - tokens);
            tokens = step.trainedTokens();
        }
        return sum / (tokens - before);
    }

    private static TrainingConfig.Builder config() {
        return TrainingConfig.builder().epochs(2).batchSize(4).maxLength(128);
    }
}
