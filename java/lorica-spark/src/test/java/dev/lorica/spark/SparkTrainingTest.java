package dev.lorica.spark;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.lorica.adapter.Adapter;
import dev.lorica.data.BatchShape;
import dev.lorica.data.Packer;
import dev.lorica.data.RecordKind;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.MemoryException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.NonFiniteException;
import dev.lorica.train.GradientWorkers;
import dev.lorica.train.Objective;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainingConfig;
import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.stream.IntStream;
import org.apache.spark.SparkEnv;
import org.apache.spark.SparkFiles;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.JavaFutureAction;
import org.apache.spark.api.java.JavaSparkContext;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** On four executors, each a process. */
class SparkTrainingTest {
    private static final int EXECUTORS = 4;

    private static JavaSparkContext spark;

    @BeforeAll
    static void start() {
        spark = Clusters.of(EXECUTORS);
    }

    /** A test before may have killed one, whose place is taken later. */
    @BeforeEach
    void awaitAll() {
        Clusters.await(spark, EXECUTORS);
    }

    @AfterAll
    static void stop() {
        if (spark != null) {
            spark.stop();
        }
    }

    private static SparkWorkers workers() {
        return new SparkWorkers(spark, Runs.model());
    }

    /** Whether it may take minutes. */
    private static final boolean THOROUGH = Boolean.getBoolean("lorica.spark.thorough");

    @Test
    void fourExecutorsMakeTheBytesOfTheTreeAndTheLossesOfOneMachine() {
        int steps = THOROUGH ? 50 : 8;
        TrainingConfig config = Runs.config(steps, 4).build();
        SparkWorkers workers = workers();

        Runs.Result onFour = Runs.train(workers, config);

        Runs.Result alone = Runs.train(null, config);
        assertThat(onFour.adapter())
                .isEqualTo(Runs.tree(config, GradientFormat.F32).adapter());
        assertThat(onFour.losses()).hasSize(steps);
        for (int step = 0; step < steps; step++) {
            assertThat(onFour.losses().get(step))
                    .as("step %d", step + 1)
                    .isCloseTo(alone.losses().get(step), within(1e-5));
        }
        assertThat(workers.times()).hasSize(steps).allSatisfy(times -> {
            assertThat(times.tasks()).isEqualTo(4);
            // once from each executor, with eight bytes that say how many there are
            assertThat(times.received()).isEqualTo(4 * (times.sent() + 8));
        });
    }

    @Test
    void inHalfTheBytesEverySumOfTheTreeIsRounded() {
        TrainingConfig config = Runs.config(3, 6).build();
        spark.sc().conf().set(SparkWorkers.GRADIENTS, "bf16").set(SparkWorkers.COMPRESS, "true");
        try {
            SparkWorkers workers = workers();

            Runs.Result onFour = Runs.train(workers, config);

            assertThat(onFour.adapter())
                    .isEqualTo(Runs.tree(config, GradientFormat.BF16).adapter());
            assertThat(onFour.adapter())
                    .isNotEqualTo(Runs.tree(config, GradientFormat.F32).adapter());
            SparkWorkers.StepTimes last = workers.times().get(2);
            assertThat(last.received()).isLessThan(last.tasks() * last.sent() * 2 / 5);
        } finally {
            spark.sc().conf().remove(SparkWorkers.GRADIENTS).remove(SparkWorkers.COMPRESS);
        }
    }

    @Test
    void answersThatFourExecutorsDrawAreThoseOfOneAndOneThatIsKilledChangesNone() throws Exception {
        Thread killer = new Thread(() -> {
            try {
                Thread.sleep(300);
            } catch (InterruptedException e) {
                return;
            }
            Clusters.kill(Clusters.executors().get(0));
        });
        killer.start();

        Runs.Result onFour = Runs.grpo(workers(), 6);

        killer.join();
        Runs.Result here = Runs.grpoTree(6);
        assertThat(onFour.adapter()).isEqualTo(here.adapter());
        assertThat(onFour.losses()).isEqualTo(here.losses()).isNotEmpty();
    }

    private static volatile int killed;

    @Test
    void executorsThatAreKilledChangeNoByte() throws Exception {
        int kills = THOROUGH ? 5 : 1;
        long seed = System.nanoTime();
        Random random = new Random(seed);
        TrainingConfig config = Runs.config(THOROUGH ? 60 : 12, 8).build();
        Thread killer = new Thread(() -> {
            for (int i = 0; i < kills; i++) {
                try {
                    Thread.sleep(500 + random.nextInt(THOROUGH ? 5000 : 1000));
                } catch (InterruptedException e) {
                    return;
                }
                List<ProcessHandle> executors = Clusters.executors();
                if (!executors.isEmpty()) {
                    Clusters.kill(executors.get(random.nextInt(executors.size())));
                    killed++;
                }
            }
        });
        killed = 0;

        Runs.Result result = Runs.train(workers(), config, step -> {
            if (step == 1) {
                killer.start();
            }
        });

        killer.join();
        assertThat(killed).isEqualTo(kills);
        assertThat(result.adapter())
                .as("seed %d", seed)
                .isEqualTo(Runs.tree(config, GradientFormat.F32).adapter());
    }

    @Test
    void aModelThatIsMissingIsNamedWithTheMachine() {
        SparkModel elsewhere =
                new SparkModel("/nowhere/llama.gguf", Runs.model().fingerprint(), "cpu", Runs.F32.precision(), 1, true);
        assertThatThrownBy(() -> Runs.train(
                        new SparkWorkers(spark, elsewhere), Runs.config(1, 4).build()))
                .isInstanceOf(FileAccessException.class)
                .hasMessageMatching("on \\S+ \\(executor \\d+\\): the model /nowhere/llama.gguf is not there.*--files");
    }

    /** On all executors but one, among the files that spark-submit brings, lies another model under the same name. */
    @Test
    void anotherModelOnAnExecutorIsNamedWithTheMachine() throws Exception {
        byte[] model = Files.readAllBytes(Clusters.model());
        model[model.length - 1] ^= 1; // of the last tensor's samples
        for (int i = 0; i < 4096; i++) {
            model[model.length - 1 - i * 97] ^= 1;
        }
        Path other = Files.createTempFile("other", ".gguf");
        Files.write(other, model);
        SparkModel named = new SparkModel(
                other.resolveSibling("austen-of-all.gguf").toString(),
                Runs.model().fingerprint(),
                "cpu",
                Runs.F32.precision(),
                1,
                true);
        String good = Clusters.model().toString();
        String bad = other.toString();
        String taken = other + ".taken"; // by the one that has the right one
        Set<String> seen = new HashSet<>();
        for (int attempt = 0; attempt < 40 && seen.size() < EXECUTORS; attempt++) {
            seen.addAll(spark.parallelize(IntStream.range(0, 16).boxed().toList(), 16)
                    .map(i -> {
                        Thread.sleep(50);
                        String id = SparkEnv.get().executorId();
                        Path target = Path.of(SparkFiles.getRootDirectory(), "austen-of-all.gguf");
                        if (!Files.exists(target)) {
                            boolean first = new File(taken).createNewFile();
                            Files.createSymbolicLink(target, Path.of(first ? good : bad));
                        }
                        return id;
                    })
                    .collect());
        }
        assertThat(seen).hasSize(EXECUTORS);

        assertThatThrownBy(() -> Runs.train(
                        new SparkWorkers(spark, named), Runs.config(4, 4).build()))
                .isInstanceOf(MismatchException.class)
                .hasMessageMatching(
                        "on \\S+ \\(executor \\d+\\): .*austen-of-all.gguf is another model than the driver's.*");
        Files.delete(other);
        Files.delete(Path.of(taken));
    }

    @Test
    void tooLittleMemoryIsSaidWithTheMachineAndWhatWouldFit() {
        TrainingConfig small = Runs.config(1, 4).memoryLimit(1 << 20).build();
        SparkWorkers workers = workers();
        Packer.Batches batches = Packer.inOrder(Runs.EXAMPLES, 1);
        GradientWorkers.Watch watch = number -> true;
        try (Adapter adapter = Runs.lora()) {
            workers.open(adapter, small, Objective.sft(), BatchShape.of(batches));
            assertThatThrownBy(() -> workers.compute(
                            new float[(int) adapter.info().parameters()], batches.subList(0, 4), 0, watch))
                    .isInstanceOf(MemoryException.class)
                    .hasMessageMatching("on \\S+ \\(executor \\d+\\): .*");
        } finally {
            workers.close();
        }
    }

    @Test
    void aLossThatIsNoNumberIsSaidWithTheMachineAndTheExample() {
        Objective broken = Objective.of("broken", RecordKind.ANSWERS, (batch, result) -> {
            result.loss(Double.NaN);
        });
        try (Adapter adapter = Runs.lora()) {
            assertThatThrownBy(() -> new Trainer(
                                    Runs.MODEL, adapter, Runs.config(1, 4).build(), broken)
                            .workers(workers())
                            .train(Runs.EXAMPLES))
                    .isInstanceOf(NonFiniteException.class)
                    .hasMessageMatching("training step 1 of 1, example \\d+ .*: on \\S+ \\(executor \\d+\\): .*NaN.*");
        }
    }

    @Test
    void anObjectiveThatCannotTravelIsRefused() {
        Object unserializable = new Object();
        Objective local = Objective.of("local", RecordKind.ANSWERS, (batch, result) -> unserializable.hashCode());
        try (Adapter adapter = Runs.lora()) {
            assertThatThrownBy(() -> new Trainer(
                                    Runs.MODEL, adapter, Runs.config(1, 4).build(), local)
                            .workers(workers())
                            .train(Runs.EXAMPLES))
                    .isInstanceOf(InvalidArgumentException.class)
                    .hasMessageContaining("the objective local cannot be sent to executors");
        }
    }

    @Test
    void executorsThatAreBusyAreSaid() throws Exception {
        JavaFutureAction<Void> busy = spark.parallelize(
                        IntStream.range(0, 8).boxed().toList(), 8)
                .foreachAsync(i -> {
                    for (int wait = 0; wait < 120 && !TaskContext.get().isInterrupted(); wait++) {
                        Thread.sleep(500);
                    }
                });
        spark.sc().conf().set(SparkWorkers.WAIT, "3");
        try {
            Thread.sleep(1500);
            assertThatThrownBy(() -> Runs.train(workers(), Runs.config(1, 4).build()))
                    .isExactlyInstanceOf(LoricaException.class)
                    .hasMessageStartingWith("no executor took a task for 3 s: the 4 executors")
                    .hasMessageContaining("spark.task.cpus");
        } finally {
            spark.sc().conf().remove(SparkWorkers.WAIT);
            busy.cancel(true);
        }
    }

    @Test
    void anUnknownFormatIsRefused() {
        spark.sc().conf().set(SparkWorkers.GRADIENTS, "f16");
        try {
            assertThatThrownBy(SparkTrainingTest::workers)
                    .isInstanceOf(InvalidArgumentException.class)
                    .hasMessageContaining("it is f32 or bf16");
        } finally {
            spark.sc().conf().remove(SparkWorkers.GRADIENTS);
        }
    }
}
