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
import dev.lorica.exceptions.NonFiniteException;
import dev.lorica.log.JsonlLog;
import dev.lorica.log.TensorBoardLog;
import java.io.FileInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** How a run ends before its time: asked to, interrupted, or because there are no numbers any more. */
@Timeout(300)
class StopTest {
    private static final LoraConfig LORA =
            LoraConfig.builder().rank(2).targetModules("q_proj", "v_proj").build();

    private static Model model;
    private static TokenizedDataset data;

    @TempDir
    Path folder;

    @BeforeAll
    static void load() {
        model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.AUTO, 1));
        data = TokenizedDataset.of(
                Dataset.of(IntStream.range(0, 8)
                        .mapToObj(i -> DataRecord.of("What is number " + i + "?", "It is " + i))
                        .toList()),
                model.tokenizer(),
                DataConfig.ofMaxLength(64));
    }

    @AfterAll
    static void close() {
        model.close();
    }

    @AfterEach
    void noInterruptIsLeft() {
        Thread.interrupted();
    }

    @Test
    void anInterruptIsARequestToStopAndIsThereAgainAtTheEnd() throws Exception {
        byte[] through = bytes(config(), null, null, step -> {});
        Thread.interrupted();

        List<String> problems = new ArrayList<>();
        try (Adapter adapter = Adapter.create(model, LORA)) {
            Trainer trainer = new Trainer(model, adapter, config()).checkpoints(folder);
            trainer.addListener(onStep(step -> {
                if (step == 3) {
                    Thread.currentThread().interrupt();
                }
            }));
            trainer.addListener(new JsonlLog(folder.resolve(JsonlLog.FILE_NAME), problems::add));
            trainer.addListener(new TensorBoardLog(folder.resolve("runs"), problems::add));

            TrainingResult result = trainer.train(data);

            assertThat(result.stopped()).isTrue();
            assertThat(result.steps()).isEqualTo(3);
            assertThat(Thread.currentThread().isInterrupted()).isTrue();
            adapter.save(folder.resolve("saved"));
        }
        assertThat(problems).isEmpty();
        assertThat(folder.resolve("saved").resolve(Adapter.FILE_NAME)).isNotEmptyFile();
        Thread.interrupted();
        assertThat(Files.readAllLines(folder.resolve(JsonlLog.FILE_NAME))).hasSize(3);

        assertThat(bytes(config(), folder, Checkpoint.path(folder, 3), step -> {}))
                .isEqualTo(through);
    }

    /** Wherever it comes, while a checkpoint is written too, the run ends in order and can go on. */
    @Test
    void anInterruptAtAnyMomentEndsInOrder() throws Exception {
        TrainingConfig config =
                config().toBuilder().saveSteps(1).saveTotalLimit(0).build();
        byte[] through = bytes(config, null, null, step -> {});
        for (int round = 0; round < 6; round++) {
            Path run = folder.resolve("run-" + round);
            ExecutorService executor = Executors.newSingleThreadExecutor();
            int millis = 10 + 60 * round;
            Future<Boolean> ended = executor.submit(() -> {
                bytes(config, run, null, step -> {});
                return Thread.currentThread().isInterrupted();
            });
            Thread.sleep(millis);
            executor.shutdownNow();
            ended.get();

            assertThat(Checkpoint.list(run))
                    .allSatisfy(path -> assertThat(Checkpoint.open(path)).isNotNull());
            Path latest = Checkpoint.latest(run, (path, reason) -> {})
                    .map(Checkpoint::path)
                    .orElse(null);
            assertThat(bytes(config, run, latest, step -> {}))
                    .as("after " + millis + " ms")
                    .isEqualTo(through);
        }
    }

    @Test
    void aStopIsHeededWhileTheDataAreRead() {
        Dataset records = Dataset.of(IntStream.range(0, 1000)
                .mapToObj(i -> DataRecord.of("What is number " + i + "?", "It is " + i))
                .toList());
        AtomicInteger asked = new AtomicInteger();
        assertThat(TokenizedDataset.of(
                        records, model.tokenizer(), DataConfig.ofMaxLength(64), () -> asked.incrementAndGet() == 10))
                .isNull();
        assertThat(asked).hasValue(10);

        try (Adapter adapter = Adapter.create(model, LORA)) {
            Trainer trainer = new Trainer(model, adapter, config());
            trainer.requestStop();
            TrainingResult stopped = trainer.train(records);
            assertThat(stopped.stopped()).isTrue();
            assertThat(stopped.steps()).isZero();

            Thread.currentThread().interrupt();
            assertThat(trainer.train(records).stopped()).isTrue();
            assertThat(Thread.interrupted()).isTrue();

            assertThat(trainer.train(records).steps()).isEqualTo(8);
        }
    }

    @Test
    void weightsThatAreNoNumbersAreNeverSaved() {
        TrainingConfig config = TrainingConfig.builder()
                .maxSteps(1)
                .learningRate(1e38)
                .schedulerType(SchedulerType.CONSTANT)
                .saveSteps(1)
                .build();
        try (Adapter adapter = Adapter.create(model, LORA)) {
            Trainer trainer = new Trainer(model, adapter, config).checkpoints(folder.resolve("run"));

            assertThatThrownBy(() -> trainer.train(data))
                    .isInstanceOf(NonFiniteException.class)
                    .hasMessageContaining("after step 1 of 1")
                    .hasMessageContaining("try a lower learning rate")
                    .message()
                    .doesNotContain("\n");
            assertThat(Checkpoint.list(folder.resolve("run"))).isEmpty();

            assertThatThrownBy(() -> adapter.save(folder.resolve("saved"))).isInstanceOf(NonFiniteException.class);
            assertThatThrownBy(() -> adapter.exportPeft(folder.resolve("saved")))
                    .isInstanceOf(NonFiniteException.class);
            assertThat(folder.resolve("saved")).doesNotExist();
        }
    }

    @Test
    void hugeBatchesAndAccumulationsAreThoseOfTheData() {
        TrainingConfig.Builder one = config().toBuilder().maxSteps(-1).epochs(2);
        for (TrainingConfig config : List.of(
                one.batchSize(1).gradientAccumulationSteps(Integer.MAX_VALUE).build(),
                one.batchSize(1 << 30).gradientAccumulationSteps(1).build(),
                one.groupByLength(true).build())) {
            try (Adapter adapter = Adapter.create(model, LORA)) {
                assertThat(new Trainer(model, adapter, config).train(data).steps())
                        .isEqualTo(2);
            }
        }
    }

    private static TrainingConfig config() {
        return TrainingConfig.builder()
                .maxSteps(8)
                .batchSize(2)
                .gradientAccumulationSteps(2)
                .learningRate(5e-3)
                .loggingSteps(1)
                .saveStrategy(IntervalStrategy.NO)
                .build();
    }

    private interface Step {
        void done(int step);
    }

    private static TrainerListener onStep(Step heard) {
        return new TrainerListener() {
            @Override
            public void onStep(TrainingProgress progress) {
                heard.done(progress.step());
            }
        };
    }

    /** Of the adapter that a run ends with. */
    private static byte[] bytes(TrainingConfig config, Path checkpoints, Path from, Step heard) throws Exception {
        try (Adapter adapter = Adapter.create(model, LORA)) {
            new Trainer(model, adapter, config)
                    .checkpoints(checkpoints)
                    .resume(from == null ? null : Checkpoint.open(from))
                    .addListener(onStep(heard))
                    .train(data);
            Path saved = Files.createTempDirectory("adapter");
            adapter.save(saved);
            // not Files.readAllBytes, which an interrupt would end
            try (FileInputStream in =
                    new FileInputStream(saved.resolve(Adapter.FILE_NAME).toFile())) {
                return in.readAllBytes();
            }
        }
    }
}
