package dev.lorica.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.AdapterMetadata;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.convert.HuggingFaceConverter;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluation;
import dev.lorica.eval.Evaluator;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.files.GgufFile;
import dev.lorica.files.Sha256;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class CheckpointTest {
    private static final LoraConfig LORA = LoraConfig.builder()
            .rank(2)
            .dropout(0.1)
            .targetModules("q_proj", "v_proj")
            .build();

    private static Model model;
    private static TokenizedDataset data;
    private static TokenizedDataset held;
    /** What {@link #config} ends in when nothing stops it. */
    private static Run through;

    @TempDir
    Path folder;

    /** A model of two small layers: what is shown here has nothing to do with its size, and everything with the bytes. */
    @BeforeAll
    static void load(@TempDir Path models) {
        Path file = models.resolve("model.gguf");
        HuggingFaceConverter.convert(
                TestModels.repository("java/lorica-core/src/test/resources/convert/llama_biases"), file, "F32");
        model = Model.load(file, new ModelConfig("cpu", Precision.AUTO, 1));
        data = numbers(0, 11);
        held = numbers(11, 14);
        through = run(config().build(), null, null);
    }

    @AfterAll
    static void close() {
        model.close();
    }

    @Test
    void goesOnFromEveryCheckpointToTheVeryBytes() {
        Run saving = run(config().saveSteps(1).saveTotalLimit(0).build(), folder, null);
        assertThat(saving.bytes).isEqualTo(through.bytes);
        assertThat(through.result.steps()).isEqualTo(8);
        assertThat(Checkpoint.list(folder)).hasSize(8);

        for (int step = 1; step <= 8; step++) {
            Run resumed = run(config().build(), null, Checkpoint.path(folder, step));

            assertThat(resumed.bytes).as("from step " + step).isEqualTo(through.bytes);
            assertThat(resumed.losses).isEqualTo(through.losses.tailMap(step + 1));
            assertThat(resumed.logged).isEqualTo(through.logged.tailMap(step + 1));
            assertThat(resumed.evaluations).isEqualTo(through.evaluations.tailMap(step + 1));
            assertThat(resumed.result.loss()).isEqualTo(through.result.loss());
            assertThat(resumed.result.trainedTokens()).isEqualTo(through.result.trainedTokens());
            assertThat(resumed.result.evaluation().loss())
                    .isEqualTo(through.result.evaluation().loss());
            assertThat(resumed.result.seconds()).isPositive();
        }
    }

    /** Else what was learned behind the end would be saved as the result of a run that never was so long. */
    @Test
    void aRunDoesNotGoOnFromBehindItsEnd() {
        run(config().saveSteps(1).saveTotalLimit(0).build(), folder, null);
        assertThat(run(config().maxSteps(5).build(), null, Checkpoint.path(folder, 5))
                        .result
                        .steps())
                .isEqualTo(5);
        assertThatThrownBy(() -> run(config().maxSteps(5).build(), null, Checkpoint.path(folder, 6)))
                .isInstanceOf(MismatchException.class)
                .hasMessageContaining("it is at step 6, and the run ends with step 5");
    }

    /** 11 examples of batches of 2, three of them a step, over 4 epochs: 24 micro-batches. */
    @ParameterizedTest
    @ValueSource(ints = {1, 4, 8, 11, 17, 23})
    void whatWasStoppedInTheMiddleOfAStepGoesOnToTheVeryBytes(int microBatch) {
        Trained stopped = new Trained();
        stopped.stopAfterMicroBatch = microBatch;
        Run first = run(config().build(), folder, null, stopped);
        assertThat(first.result.stopped()).isTrue();

        Checkpoint checkpoint = Checkpoint.latest(folder, CheckpointTest::none).orElse(null);
        Run second = run(config().build(), folder, checkpoint == null ? null : checkpoint.path());

        assertThat(second.bytes).isEqualTo(through.bytes);
        assertThat(first.losses.size() + second.losses.size()).isEqualTo(8);
        Map<Integer, Double> all = new TreeMap<>(first.evaluations);
        all.putAll(second.evaluations);
        assertThat(all).isEqualTo(through.evaluations);
    }

    @Test
    void anEvaluationThatWasInterruptedIsMadeUpFor() {
        Trained stopped = new Trained();
        stopped.stopAtStep = 2;
        Run first = run(config().build(), folder, null, stopped);
        assertThat(first.evaluations).isEmpty();

        Run second = run(config().build(), folder, Checkpoint.path(folder, 2));

        assertThat(second.resumption.evaluationPending()).isTrue();
        assertThat(second.evaluations).isEqualTo(through.evaluations);
        assertThat(second.bytes).isEqualTo(through.bytes);
    }

    @Test
    void aCheckpointIsAnAdapterToo() {
        run(config().saveSteps(4).build(), folder, null);

        try (Adapter adapter = Adapter.load(model, Checkpoint.path(folder, 4))) {
            assertThat(adapter.template()).isEqualTo(data.report().template());
            assertThat(TrainingResult.of(adapter.metadata()).steps()).isEqualTo(4);
            assertThat(new Evaluator(model, adapter).evaluate(held, 2).loss()).isCloseTo(evaluationAt(4), within(1e-6));
        }
        assertThat(children(folder)).containsExactly("checkpoint-4", "checkpoint-8");
    }

    @Test
    void damageIsSeenAndPassedOver() throws IOException {
        run(config().saveSteps(4).build(), folder, null);
        for (String name : List.of("adapter.gguf", "training_state.bin", "trainer_state.json", "lorica_adapter.json")) {
            Path file = Checkpoint.path(folder, 8).resolve(name);
            byte[] good = Files.readAllBytes(file);

            byte[] bad = good.clone();
            bad[bad.length / 2] ^= 1;
            Files.write(file, bad);
            assertThatThrownBy(() -> Checkpoint.open(Checkpoint.path(folder, 8)))
                    .isInstanceOf(FileFormatException.class)
                    .hasMessageContaining("checkpoint-8 is damaged: " + name);
            Files.delete(file);
            List<Path> damaged = new ArrayList<>();
            assertThat(Checkpoint.latest(folder, (path, reason) -> damaged.add(path))
                            .orElseThrow()
                            .step())
                    .isEqualTo(4);
            assertThat(damaged).containsExactly(Checkpoint.path(folder, 8));

            Files.write(file, good);
            assertThat(Checkpoint.latest(folder, CheckpointTest::none)
                            .orElseThrow()
                            .step())
                    .isEqualTo(8);
        }
        Files.writeString(Checkpoint.path(folder, 8).resolve(Checkpoint.MANIFEST), "");
        assertThatThrownBy(() -> Checkpoint.open(Checkpoint.path(folder, 8))).hasMessageContaining("not whole");
        Files.delete(Checkpoint.path(folder, 8).resolve(Checkpoint.MANIFEST));
        assertThatThrownBy(() -> Checkpoint.open(Checkpoint.path(folder, 8)))
                .hasMessageContaining("no whole checkpoint");
    }

    /** As a version before, which did not look at what it saved, may have left it. */
    @Test
    void weightsThatAreNoNumbersArePassedOver() throws IOException {
        run(config().saveSteps(4).build(), folder, null);
        Path weights = Checkpoint.path(folder, 8).resolve(Adapter.FILE_NAME);
        byte[] bytes = Files.readAllBytes(weights);
        String before = checksum(bytes);
        try (GgufFile gguf = GgufFile.open(weights)) {
            GgufFile.Tensor last = gguf.tensors().get(gguf.tensors().size() - 1);
            ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).putFloat((int) last.offset() + 4, Float.NaN);
        }
        Files.write(weights, bytes);
        Path manifest = Checkpoint.path(folder, 8).resolve(Checkpoint.MANIFEST);
        Files.writeString(manifest, Files.readString(manifest).replace(before, checksum(bytes)));

        List<String> passedOver = new ArrayList<>();
        Checkpoint latest = Checkpoint.latest(folder, (path, reason) -> passedOver.add(reason.getMessage()))
                .orElseThrow();

        assertThat(latest.step()).isEqualTo(4);
        assertThat(passedOver).singleElement().asString().contains("numbers that are not finite");
    }

    private static String checksum(byte[] bytes) {
        return HexFormat.of().formatHex(Sha256.digest().digest(bytes));
    }

    @Test
    void whatAKilledProcessLeftBehindIsClearedAway() throws IOException {
        Files.createDirectories(folder.resolve("checkpoint-3.tmp"));
        Files.writeString(folder.resolve("checkpoint-3.tmp/adapter.gguf"), "half of it");
        Files.createDirectories(folder.resolve("checkpoint-2.old.tmp"));
        Files.createDirectories(folder.resolve("checkpoint-of-mine"));

        run(config().saveSteps(8).build(), folder, null);

        assertThat(children(folder)).containsExactly("checkpoint-8", "checkpoint-of-mine");
    }

    @Test
    void theNewestAreKept() {
        run(config().saveSteps(1).saveTotalLimit(3).build(), folder, null);

        assertThat(children(folder)).containsExactly("checkpoint-6", "checkpoint-7", "checkpoint-8");
    }

    @Test
    void theBestIsKeptAndLoadedAtTheEnd() {
        // The rate rises to the end, where it is far too high even for a model that knows nothing.
        TrainingConfig.Builder worse =
                config().learningRate(10).warmupSteps(8).evalSteps(1).loadBestModelAtEnd(true);
        Run run = run(worse.saveSteps(1).saveTotalLimit(1).build(), folder, null);

        int best = run.evaluations.entrySet().stream()
                .min(Map.Entry.comparingByValue())
                .orElseThrow()
                .getKey();
        assertThat(best).isLessThan(8);
        assertThat(run.result.bestStep()).isEqualTo(best);
        assertThat(run.result.evaluation().loss()).isEqualTo(run.evaluations.get(best));
        assertThat(children(folder)).containsExactlyInAnyOrder("checkpoint-" + best, "checkpoint-8");
        assertThat(Checkpoint.path(folder, best).resolve(Adapter.FILE_NAME)).hasBinaryContent(run.bytes);
    }

    @Test
    void trainingStopsEarlyAlsoAfterAResume() {
        TrainingConfig.Builder worse = config().epochs(20)
                .learningRate(10)
                .evalSteps(1)
                .earlyStoppingPatience(3)
                .saveSteps(1)
                .saveTotalLimit(0);
        Run through = run(worse.build(), folder, null);
        assertThat(through.result.stoppedEarly()).isTrue();
        assertThat(through.result.stopped()).isFalse();
        assertThat(through.result.steps())
                .isEqualTo(through.result.bestStep() + 3)
                .isLessThan(40);

        for (int step : List.of(through.result.steps() - 1, through.result.steps())) {
            Run resumed = run(worse.build(), null, Checkpoint.path(folder, step));

            assertThat(resumed.result.stoppedEarly()).isTrue();
            assertThat(resumed.result.steps()).isEqualTo(through.result.steps());
            assertThat(resumed.bytes).isEqualTo(through.bytes);
        }
    }

    @Test
    void whatCannotBeContinuedIsRefusedAndWhatWouldEndElsewhereIsSaid() {
        run(config().saveSteps(4).build(), folder, null);
        Path checkpoint = Checkpoint.path(folder, 4);

        assertThatThrownBy(() -> run(config().batchSize(3).seed(7).build(), null, checkpoint))
                .isInstanceOf(MismatchException.class)
                .hasMessageContaining("batch size was 2 and is 3")
                .hasMessageContaining("seed was 42 and is 7");
        try (Adapter other = Adapter.create(
                model, LoraConfig.builder().rank(4).targetModules("q_proj").build())) {
            Trainer trainer = new Trainer(model, other, config().build()).resume(Checkpoint.open(checkpoint));
            assertThatThrownBy(() -> trainer.train(data, held))
                    .isInstanceOf(MismatchException.class)
                    .hasMessageContaining("rank was 2 and is 4")
                    .hasMessageContaining("target modules");
        }
        try (Adapter adapter = Adapter.create(model, LORA)) {
            Trainer trainer = new Trainer(model, adapter, config().build()).resume(Checkpoint.open(checkpoint));
            assertThatThrownBy(() -> trainer.train(held, held))
                    .isInstanceOf(MismatchException.class)
                    .hasMessageContaining("the training data are others");
        }
        Run longer = run(config().epochs(5).learningRate(1e-3).build(), null, checkpoint);
        assertThat(longer.resumption.changes())
                .containsExactly("epochs was 4.0 and is 5.0", "learning rate was 0.005 and is 0.001");
        assertThat(longer.result.steps()).isEqualTo(10);
    }

    @Test
    void aCheckpointThatCannotBeWrittenCostsItselfOnly() {
        List<Integer> failed = new ArrayList<>();
        Trained obstacle = new Trained() {
            @Override
            public void onStep(TrainingProgress progress) {
                super.onStep(progress);
                if (progress.step() == 3) {
                    swap("run", "moved");
                } else if (progress.step() == 7) {
                    swap("moved", "run");
                }
            }

            @Override
            public void onSaveFailed(int step, LoricaException reason) {
                failed.add(step);
            }
        };

        Run run = run(config().saveSteps(2).saveTotalLimit(0).build(), makeFolder("run"), null, obstacle);

        assertThat(failed).containsExactly(4, 6);
        assertThat(children(folder.resolve("run"))).containsExactly("checkpoint-2", "checkpoint-8");
        assertThat(run.bytes).isEqualTo(through.bytes);
    }

    @Test
    void aBestCheckpointThatCouldNotBeWrittenIsNotCountedOn() throws IOException {
        Trained obstacle = new Trained() {
            @Override
            public void onStep(TrainingProgress progress) {
                super.onStep(progress);
                if (progress.step() == 3) {
                    swap("run", "moved");
                }
            }

            @Override
            public void onSaveFailed(int step, LoricaException reason) {
                if (step == 8) {
                    swap("moved", "run");
                }
            }
        };

        Run run = run(config().evalSteps(1).loadBestModelAtEnd(true).build(), makeFolder("run"), null, obstacle);

        assertThat(run.evaluations.get(8)).isLessThan(run.evaluations.get(2));
        assertThat(run.result.bestStep()).isEqualTo(2);
        assertThat(Checkpoint.path(folder.resolve("run"), 2).resolve(Adapter.FILE_NAME))
                .hasBinaryContent(run.bytes);

        Checkpoint two = Checkpoint.open(Checkpoint.path(folder.resolve("run"), 2));
        Run elsewhere = run(config().evalSteps(1).loadBestModelAtEnd(true).build(), makeFolder("else"), two.path());
        assertThat(elsewhere.resumption.changes())
                .singleElement()
                .asString()
                .contains("the best checkpoint so far, of step 2, is not in");
        assertThat(elsewhere.result.bestStep()).isGreaterThan(2);
    }

    /** Puts a file where the folder was, or the folder back. */
    private void swap(String from, String to) {
        try {
            Files.deleteIfExists(folder.resolve(to));
            Files.move(folder.resolve(from), folder.resolve(to));
            if (from.equals("run")) {
                Files.writeString(folder.resolve(from), "not a folder");
            }
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    @Test
    void settingsThatNeedMoreSaySo() {
        assertThatThrownBy(() -> run(config().loadBestModelAtEnd(true).build(), null, null))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("a folder for checkpoints");
        assertThatThrownBy(() -> config().evalStrategy(IntervalStrategy.NO)
                        .earlyStoppingPatience(2)
                        .build())
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("eval strategy is no");
    }

    private double evaluationAt(int step) {
        return Checkpoint.open(Checkpoint.path(folder, step)).state().evaluation.loss();
    }

    private static TrainingConfig.Builder config() {
        return TrainingConfig.builder()
                .epochs(4)
                .batchSize(2)
                .gradientAccumulationSteps(3)
                .learningRate(5e-3)
                .schedulerType(SchedulerType.COSINE)
                .loggingSteps(3)
                .evalSteps(2)
                .saveStrategy(IntervalStrategy.NO);
    }

    private static TokenizedDataset numbers(int from, int to) {
        return TokenizedDataset.of(
                Dataset.of(IntStream.range(from, to)
                        .mapToObj(i -> DataRecord.of(
                                "What is number " + i + "?", "It is " + "one more than ".repeat(i % 4) + i))
                        .toList()),
                model.tokenizer(),
                DataConfig.ofMaxLength(256));
    }

    /** Hears everything and can stop the run. */
    private static class Trained implements TrainerListener {
        final TreeMap<Integer, Double> losses = new TreeMap<>();
        final TreeMap<Integer, Double> logged = new TreeMap<>();
        final TreeMap<Integer, Double> evaluations = new TreeMap<>();
        Resumption resumption;
        Trainer trainer;
        int stopAtStep;
        int stopAfterMicroBatch;

        @Override
        public void onMicroBatch() {
            if (--stopAfterMicroBatch == 0) {
                trainer.requestStop();
            }
        }

        @Override
        public void onResume(Resumption value) {
            resumption = value;
        }

        @Override
        public void onStep(TrainingProgress progress) {
            losses.put(progress.step(), progress.loss());
            if (progress.step() == stopAtStep) {
                trainer.requestStop();
            }
        }

        @Override
        public void onLog(TrainingProgress progress) {
            logged.put(progress.step(), progress.loss());
        }

        @Override
        public void onEvaluate(int step, Evaluation evaluation) {
            evaluations.put(step, evaluation.loss());
        }
    }

    private record Run(
            TrainingResult result,
            byte[] bytes,
            TreeMap<Integer, Double> losses,
            TreeMap<Integer, Double> logged,
            TreeMap<Integer, Double> evaluations,
            Resumption resumption) {}

    private static Run run(TrainingConfig config, Path checkpoints, Path from) {
        return run(config, checkpoints, from, new Trained());
    }

    private static Run run(TrainingConfig config, Path checkpoints, Path from, Trained heard) {
        try (Adapter adapter = Adapter.create(model, LORA)) {
            Trainer trainer =
                    new Trainer(model, adapter, config).checkpoints(checkpoints).addListener(heard);
            trainer.resume(from == null ? null : Checkpoint.open(from));
            heard.trainer = trainer;
            TrainingResult result = trainer.train(data, held);
            Path saved = Files.createTempDirectory("adapter");
            adapter.save(saved);
            byte[] bytes = Files.readAllBytes(saved.resolve(Adapter.FILE_NAME));
            for (Path file :
                    List.of(saved.resolve(Adapter.FILE_NAME), saved.resolve(AdapterMetadata.FILE_NAME), saved)) {
                Files.delete(file);
            }
            return new Run(result, bytes, heard.losses, heard.logged, heard.evaluations, heard.resumption);
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    private Path makeFolder(String name) {
        try {
            return Files.createDirectories(folder.resolve(name));
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    private static List<String> children(Path folder) {
        try (Stream<Path> files = Files.list(folder)) {
            return files.map(file -> file.getFileName().toString()).sorted().toList();
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    private static void none(Path path, LoricaException reason) {
        throw new AssertionError(path.toString(), reason);
    }
}
