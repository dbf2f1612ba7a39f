package dev.lorica.train;

import static org.assertj.core.api.Assertions.fail;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Every call beside every other one, on the same model, adapters and generators. */
class ConcurrentCallsTest {
    private static final int THREADS = 2;
    private static final int TIMES = 3;

    @TempDir
    Path folder;

    @Test
    void noTwoCallsWaitForEachOther() throws Exception {
        ExecutorService executor = Executors.newFixedThreadPool(2 * THREADS);
        try (Model model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.BF16, 2));
                Generator early = new Generator(model); // older than the adapters that it applies
                Adapter one = adapter(model, 1);
                Adapter other = adapter(model, 2);
                Generator late = new Generator(model);
                LocalSession session = new LocalSession(one, TrainingConfig.defaults(), new BatchShape(8, 2, 8))) {
            List<ScaledAdapter> forwards = List.of(new ScaledAdapter(one, 1), new ScaledAdapter(other, 0.5));
            List<ScaledAdapter> backwards = List.of(new ScaledAdapter(other, 1), new ScaledAdapter(one, 0.5));
            Batch batch = Batch.of(new int[] {1, 2, 3}, new int[] {2, 3, Batch.IGNORE}, 3);
            Map<String, Callable<?>> calls = new LinkedHashMap<>();
            calls.put("generate forwards", () -> generate(early, forwards));
            calls.put("generate backwards", () -> generate(late, backwards));
            calls.put("generate with a generator of its own", () -> ownGenerator(model, backwards));
            calls.put("set the scale of one", () -> {
                one.setScale(0.5 + Math.random());
                return null;
            });
            calls.put("set the scale of the other", () -> {
                other.setScale(0.5 + Math.random());
                return null;
            });
            calls.put("read one", () -> one.values(0));
            calls.put("write the other", () -> {
                other.setValues(0, other.values(0));
                return null;
            });
            calls.put("describe", () -> List.of(one.info(), other.tensors(), model.info()));
            calls.put("stack", () -> {
                Adapter.stack(model, backwards).close();
                return null;
            });
            calls.put("save", () -> {
                one.save(folder.resolve("adapter-" + Thread.currentThread().getId()));
                return null;
            });
            calls.put("add gradients", () -> session.forwardBackward(batch));
            calls.put("evaluate", () -> session.evaluate(batch));
            calls.put("step", () -> session.optimizerStep(1e-5, 0, 1, 1));
            calls.put("save the state", () -> {
                session.saveState(
                        folder.resolve("state-" + Thread.currentThread().getId()));
                return null;
            });
            calls.put("plan", () -> LocalSession.plan(other, TrainingConfig.defaults(), new BatchShape(8, 2, 8)));
            calls.put("make and close", () -> {
                adapter(model, 3).close();
                return null;
            });

            List<String> names = new ArrayList<>(calls.keySet());
            for (int i = 0; i < names.size(); i++) {
                for (int j = i; j < names.size(); j++) {
                    runBoth(executor, names.get(i), calls.get(names.get(i)), names.get(j), calls.get(names.get(j)));
                }
            }
        } finally {
            executor.shutdownNow();
        }
    }

    private static void runBoth(ExecutorService executor, String a, Callable<?> callA, String b, Callable<?> callB)
            throws Exception {
        List<Callable<Void>> threads = new ArrayList<>();
        for (Callable<?> call : List.of(callA, callB)) {
            for (int thread = 0; thread < THREADS; thread++) {
                threads.add(() -> {
                    for (int i = 0; i < TIMES; i++) {
                        call.call();
                    }
                    return null;
                });
            }
        }
        for (Future<Void> future : executor.invokeAll(threads, 5, TimeUnit.MINUTES)) {
            if (future.isCancelled()) {
                fail("\"" + a + "\" and \"" + b + "\" wait for each other");
            }
            future.get();
        }
    }

    private static Adapter adapter(Model model, long seed) {
        return Adapter.create(model, LoraConfig.builder().rank(2).seed(seed).build());
    }

    private static String generate(Generator generator, List<ScaledAdapter> adapters) {
        // Another thread may begin one on the same generator, which ends this one.
        synchronized (generator) {
            return generator
                    .generate(
                            "It is",
                            GenerationConfig.builder()
                                    .temperature(0)
                                    .maxNewTokens(2)
                                    .build(),
                            adapters)
                    .result()
                    .text();
        }
    }

    private static String ownGenerator(Model model, List<ScaledAdapter> adapters) {
        try (Generator generator = new Generator(model)) {
            return generate(generator, adapters);
        }
    }
}
