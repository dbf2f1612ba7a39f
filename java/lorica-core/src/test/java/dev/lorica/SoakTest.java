package dev.lorica;

import static org.assertj.core.api.Assertions.assertThat;

import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluator;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.MemoryException;
import dev.lorica.generate.Generation;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import dev.lorica.train.Recomputation;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainingConfig;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.atomic.AtomicLongArray;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * A server's day: fifty threads that generate, train, evaluate, change scales, save and load, are interrupted, close what others use,
 * and are refused memory. For how long: {@code -DargLine=-Dlorica.soakSeconds=3600}.
 */
class SoakTest {
    private static final int SECONDS = Integer.getInteger("lorica.soakSeconds", 15);
    private static final int THREADS = 50;
    /** Longer than any call takes while fifty of them share two cores. */
    private static final long LONGEST_CALL_SECONDS = 120;

    private static final long MOST_GROWTH = 256L << 20;
    private static final List<DataRecord> RECORDS =
            List.of(DataRecord.of("Where is Pemberley?", "In Derbyshire."), DataRecord.of("Who?", "Mr. Collins."));

    @TempDir
    Path folder;

    /** What a thread does; in what it does it may be interrupted. */
    private interface Act {
        void by(Random random) throws Exception;
    }

    private final ConcurrentLinkedQueue<Throwable> wrong = new ConcurrentLinkedQueue<>();
    private final AtomicLongArray begun = new AtomicLongArray(THREADS);
    private volatile boolean over;

    @Test
    void nothingWaitsForEverNothingLeaksAndNothingEndsTheProcess() throws Exception {
        try (Model model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.BF16, 1));
                Adapter one = adapter(model, 1);
                Adapter other = adapter(model, 2);
                Generator common = new Generator(model)) {
            List<Act> acts = acts(model, one, other, common);
            AtomicIntegerArray done = new AtomicIntegerArray(acts.size());
            List<Thread> threads = new ArrayList<>();
            for (int t = 0; t < THREADS; t++) {
                int number = t;
                Thread thread = new Thread(() -> live(number, acts, done));
                threads.add(thread);
                thread.start();
            }
            long early = 0;
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(SECONDS);
            Random random = new Random(7);
            while (System.nanoTime() < end) {
                Thread.sleep(50);
                threads.get(random.nextInt(THREADS)).interrupt();
                requireNobodyWaits(threads);
                boolean third = System.nanoTime() > end - TimeUnit.SECONDS.toNanos(SECONDS) * 2 / 3;
                if (early == 0 && third) {
                    early = resident();
                }
            }
            over = true;
            for (Thread thread : threads) {
                thread.join(TimeUnit.SECONDS.toMillis(LONGEST_CALL_SECONDS));
                assertThat(thread.isAlive()).as(thread + " is still at work").isFalse();
            }
            System.gc();

            assertThat(wrong).isEmpty();
            assertThat(resident() - early).as("bytes that came and stayed").isLessThan(MOST_GROWTH);
            for (int act = 0; act < acts.size(); act++) {
                assertThat(done.get(act))
                        .as("how often act " + act + " was done")
                        .isPositive();
            }
        }
    }

    private void live(int number, List<Act> acts, AtomicIntegerArray done) {
        Random random = new Random(number);
        for (int i = number; !over; i = random.nextInt(acts.size())) {
            int act = i % acts.size();
            begun.set(number, System.nanoTime());
            try {
                acts.get(act).by(random);
                done.incrementAndGet(act);
            } catch (LoricaException | InterruptedException e) {
                done.incrementAndGet(act); // cancelled, refused, or broken off
            } catch (IllegalStateException e) {
                if (String.valueOf(e.getMessage()).matches(".* is closed|another generation was begun .*")) {
                    done.incrementAndGet(act);
                } else {
                    wrong.add(e);
                }
            } catch (Throwable e) {
                wrong.add(e);
            }
            Thread.interrupted();
            begun.set(number, 0);
        }
    }

    private void requireNobodyWaits(List<Thread> threads) {
        for (int t = 0; t < THREADS; t++) {
            long since = begun.get(t);
            if (since != 0 && System.nanoTime() - since > TimeUnit.SECONDS.toNanos(LONGEST_CALL_SECONDS)) {
                throw new AssertionError(
                        "a call does not end: " + Arrays.toString(threads.get(t).getStackTrace()));
            }
        }
    }

    private List<Act> acts(Model model, Adapter one, Adapter other, Generator common) {
        GenerationConfig few = GenerationConfig.builder().maxNewTokens(4).build();
        List<ScaledAdapter> forwards = List.of(new ScaledAdapter(one, 1), new ScaledAdapter(other, 0.5));
        List<ScaledAdapter> backwards = List.of(new ScaledAdapter(other, 1), new ScaledAdapter(one, -0.5));
        TokenizedDataset data = TokenizedDataset.of(Dataset.of(RECORDS), model.tokenizer(), DataConfig.ofMaxLength(64));
        TrainingConfig step = TrainingConfig.builder().maxSteps(2).build();
        return List.of(
                random -> common.ask("Who is Mr. Collins?", few, random.nextBoolean() ? forwards : backwards)
                        .result(),
                random -> one.setScale(random.nextDouble()),
                random -> other.setScale(random.nextDouble()),
                random -> {
                    try (Generator own = new Generator(model, backwards)) {
                        Generation generation = own.ask("Where is Pemberley?", few);
                        if (random.nextBoolean()) {
                            generation.cancel();
                        }
                        generation.result();
                    }
                },
                random -> {
                    Generator closing = new Generator(model, forwards);
                    Thread closer = new Thread(closing::close);
                    Generation generation = closing.ask("It is a truth", few);
                    closer.start();
                    try {
                        generation.result();
                    } finally {
                        closer.join();
                    }
                },
                random -> {
                    try (Adapter trained = adapter(model, random.nextInt())) {
                        Trainer trainer = new Trainer(model, trained, step);
                        if (random.nextInt(4) == 0) {
                            trainer.requestStop();
                        }
                        trainer.train(data);
                    }
                },
                random -> {
                    try (Adapter trained = adapter(model, random.nextInt())) {
                        new Trainer(
                                        model,
                                        trained,
                                        step.toBuilder().memoryLimit(1 << 20).build())
                                .train(data);
                        throw new AssertionError("a limit on memory was not kept");
                    } catch (MemoryException e) {
                        // as it should be
                    }
                },
                random -> new Trainer(
                                model,
                                one,
                                step.toBuilder().recomputation(Recomputation.ON).build())
                        .memoryPlan(2, 64),
                random -> new Evaluator(model, random.nextBoolean() ? other : null).evaluate(data, 2),
                random -> {
                    Path home =
                            folder.resolve("adapter-" + Thread.currentThread().getId());
                    one.save(home);
                    Adapter.load(model, home).close();
                },
                random -> {
                    try (Model again = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.F32, 2))) {
                        Adapter of = adapter(again, 3);
                        Generator generator = new Generator(again, of);
                        Generation generation = generator.ask("Who?", few);
                        again.close();
                        of.close();
                        try (generator) {
                            generation.result();
                        }
                    }
                },
                random -> model.tokenizer()
                        .decode(model.tokenizer().encode("It is a truth universally acknowledged", true, false)));
    }

    private static Adapter adapter(Model model, long seed) {
        return Adapter.create(model, LoraConfig.builder().rank(2).seed(seed).build());
    }

    private static long resident() throws IOException {
        return Files.readAllLines(Path.of("/proc/self/status")).stream()
                .filter(line -> line.startsWith("VmRSS:"))
                .mapToLong(line -> 1024 * Long.parseLong(line.replaceAll("\\D", "")))
                .findFirst()
                .orElse(0);
    }
}
