package dev.lorica;

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
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.atomic.AtomicLongArray;
import java.util.function.Supplier;
import java.util.stream.Collectors;

/**
 * The program that {@link SoakTest} runs under limits: fifty threads that generate, train, evaluate, change scales, save and load, are
 * interrupted, close what others use, and ask for more memory and more threads than there are. Arguments: seconds, a folder. It ends with
 * 0, or with 1 and what was wrong.
 */
final class Soak {
    static final int THREADS = 50;

    private static final long MOST_GROWTH = 256L << 20;
    /** Beyond those that ask: the engine's and those of acts that close what others use. */
    private static final int MOST_MORE_THREADS = THREADS + 16;

    private static final List<DataRecord> RECORDS =
            List.of(DataRecord.of("Where is Pemberley?", "In Derbyshire."), DataRecord.of("Who?", "Mr. Collins."));

    /** Whose activations take gibibytes. */
    private static final int LONG_RECORDS = 512;

    private final int seconds;
    private final Path folder;

    private Soak(int seconds, Path folder) {
        this.seconds = seconds;
        this.folder = folder;
    }

    public static void main(String[] args) {
        int status = 0;
        try {
            new Soak(Integer.parseInt(args[0]), Path.of(args[1])).run();
        } catch (Throwable e) {
            e.printStackTrace(System.out);
            Thread.getAllStackTraces()
                    .forEach((thread, stack) -> System.out.println(thread + " " + Arrays.toString(stack)));
            status = 1;
        }
        System.out.flush();
        Runtime.getRuntime().halt(status); // whoever is still at work
    }

    /** What a thread does; in what it does it may be interrupted. */
    private interface Act {
        void by(Random random) throws Exception;
    }

    private final ConcurrentLinkedQueue<Throwable> wrong = new ConcurrentLinkedQueue<>();
    private final AtomicLongArray begun = new AtomicLongArray(THREADS);
    private final AtomicInteger noThread = new AtomicInteger();
    private final AtomicInteger noMemory = new AtomicInteger();
    private final CountDownLatch limited = new CountDownLatch(1);
    private volatile boolean over;

    private void run() throws Exception {
        long threadsAtFirst = status("Threads");
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
            System.out.println("ready");
            require(System.in.read() >= 0, "there are no limits"); // until they are set
            limited.countDown();
            long early = 0;
            long mostThreads = 0;
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(seconds);
            Random random = new Random(7);
            while (System.nanoTime() < end) {
                Thread.sleep(50);
                threads.get(random.nextInt(THREADS)).interrupt();
                requireNobodyWaits(threads);
                mostThreads = Math.max(mostThreads, status("Threads") - threadsAtFirst);
                boolean third = System.nanoTime() > end - TimeUnit.SECONDS.toNanos(seconds) * 2 / 3;
                if (early == 0 && third) {
                    early = status("VmRSS");
                }
            }
            over = true;
            for (Thread thread : threads) {
                thread.join(TimeUnit.SECONDS.toMillis(longestCallSeconds()));
                require(!thread.isAlive(), () -> "still at work: " + threadsAtWork(threads));
            }
            System.gc();

            long grown = (status("VmRSS") - early) * 1024;
            System.out.printf(
                    "acts %s, threads refused %d, memory refused %d, most threads %d, %d MiB and %d MiB since%n",
                    done, noThread.get(), noMemory.get(), mostThreads, early >> 10, grown >> 20);
            if (!wrong.isEmpty()) {
                throw new AssertionError(wrong.size() + " calls failed otherwise than they may", wrong.peek());
            }
            require(grown < MOST_GROWTH, grown + " bytes came and stayed");
            require(mostThreads <= MOST_MORE_THREADS, mostThreads + " threads for " + THREADS);
            require(noMemory.get() > 0, "a limit on memory was never met");
            for (int act = 0; act < acts.size(); act++) {
                require(done.get(act) > 0, "act " + act + " was never done");
            }
        }
    }

    private static void require(boolean holds, Supplier<String> otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise.get());
        }
    }

    private static void require(boolean holds, String otherwise) {
        require(holds, () -> otherwise);
    }

    private static String threadsAtWork(List<Thread> threads) {
        return threads.stream()
                .filter(Thread::isAlive)
                .map(thread -> thread + " " + Arrays.toString(thread.getStackTrace()))
                .collect(Collectors.joining("\n"));
    }

    private void live(int number, List<Act> acts, AtomicIntegerArray done) {
        Random random = new Random(number);
        try {
            limited.await();
        } catch (InterruptedException e) {
            // by run(), so the limits are set
        }
        for (int i = number; !over; i = random.nextInt(acts.size())) {
            int act = i % acts.size();
            begun.set(number, System.nanoTime());
            try {
                acts.get(act).by(random);
                done.incrementAndGet(act);
            } catch (MemoryException e) {
                done.incrementAndGet(act);
                noMemory.incrementAndGet();
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

    /** Longer than any call takes while fifty of them share two cores, and others have these in a long soak. */
    private long longestCallSeconds() {
        return Math.max(120, seconds / 6);
    }

    private void requireNobodyWaits(List<Thread> threads) {
        for (int t = 0; t < THREADS; t++) {
            long since = begun.get(t);
            if (since != 0 && System.nanoTime() - since > TimeUnit.SECONDS.toNanos(longestCallSeconds())) {
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
        TokenizedDataset longData = TokenizedDataset.of(
                Dataset.of(Collections.nCopies(LONG_RECORDS, DataRecord.of("Who?", "Mr. Collins. ".repeat(70)))),
                model.tokenizer(),
                DataConfig.ofMaxLength(512));
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
                    if (!start(closer)) {
                        closing.close();
                    }
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
                    // More than was allowed, or more than the limits of the process leave.
                    boolean allowed = random.nextBoolean();
                    TrainingConfig large = allowed
                            ? step.toBuilder().memoryLimit(1 << 20).build()
                            : step.toBuilder()
                                    .batchSize(LONG_RECORDS)
                                    .recomputation(Recomputation.OFF)
                                    .build();
                    try (Adapter trained = adapter(model, random.nextInt())) {
                        new Trainer(model, trained, large).train(allowed ? data : longData);
                        throw new AssertionError("a limit on memory was not kept");
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

    /** Whether the system gave a thread for it. */
    private boolean start(Thread thread) {
        try {
            thread.start();
            return true;
        } catch (OutOfMemoryError e) {
            if (!String.valueOf(e.getMessage()).contains("native thread")) {
                throw e;
            }
            noThread.incrementAndGet();
            return false;
        }
    }

    /** A number of /proc/self/status, memory in KiB. */
    private static long status(String key) throws IOException {
        return Files.readAllLines(Path.of("/proc/self/status")).stream()
                .filter(line -> line.startsWith(key + ":"))
                .mapToLong(line -> Long.parseLong(line.replaceAll("\\D", "")))
                .findFirst()
                .orElseThrow();
    }
}
