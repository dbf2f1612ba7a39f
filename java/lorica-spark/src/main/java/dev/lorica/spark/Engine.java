package dev.lorica.spark;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.generate.GenerationResult;
import dev.lorica.spark.StepTask.NodeSum;
import dev.lorica.train.GradientTree;
import dev.lorica.train.GradientTree.Node;
import dev.lorica.train.GradientWorker;
import dev.lorica.train.Gradients;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import org.apache.spark.TaskContext;
import org.apache.spark.TaskKilledException;
import org.apache.spark.broadcast.Broadcast;

/** What an executor's JVM has open: models, each once, and the session of one training. */
final class Engine {
    private static final Map<SparkModel, Model> MODELS = new HashMap<>();
    /** Of the training that came last; {@code null}: none yet. */
    private static Engine current;

    private final String run;
    private final Adapter adapter;
    private final GradientWorker worker;
    private final TrainingSetup setup;
    /** Of the broadcast whose values the adapter has. */
    private long parameters = -1;

    private Engine(TrainingSetup setup) {
        this.setup = setup;
        this.run = setup.run();
        Model model = model(setup.model());
        adapter = load(model, setup.adapter());
        try {
            // Its plan is made here, with the memory of this machine.
            worker = new GradientWorker(adapter, setup.config(), setup.objective(), setup.shape());
        } catch (RuntimeException e) {
            adapter.close();
            throw e;
        }
    }

    /** A model that stays open as long as the JVM runs. */
    static synchronized Model model(SparkModel named) {
        Model model = MODELS.get(named);
        if (model == null) {
            model = named.open();
            MODELS.put(named, model);
        }
        return model;
    }

    /** An adapter from the bytes of its file. */
    static Adapter load(Model model, byte[] file) {
        try {
            Path folder = Files.createTempDirectory("lorica-adapter");
            Path weights = folder.resolve("from-driver.gguf");
            try {
                Files.write(weights, file);
                return Adapter.load(model, weights);
            } finally {
                Files.deleteIfExists(weights);
                Files.delete(folder);
            }
        } catch (IOException e) {
            throw new FileAccessException("the adapter cannot be put into a temporary file: " + e, e);
        }
    }

    /** The bytes of an adapter's file. */
    static byte[] bytes(Adapter adapter) {
        try {
            Path folder = Files.createTempDirectory("lorica-adapter");
            try {
                adapter.save(folder);
                return Files.readAllBytes(folder.resolve(Adapter.FILE_NAME));
            } finally {
                try (var files = Files.list(folder)) {
                    for (Path file : files.toList()) {
                        Files.delete(file);
                    }
                }
                Files.delete(folder);
            }
        } catch (IOException | UncheckedIOException e) {
            throw new FileAccessException("the adapter cannot be put into a temporary file: " + e, e);
        }
    }

    /** A share of a step, on an executor. */
    static StepTask.Result compute(Broadcast<TrainingSetup> setup, Broadcast<byte[]> parameters, StepTask task) {
        long start = System.nanoTime();
        int[] at = {-1};
        return onExecutor(
                setup,
                parameters,
                engine -> engine.compute(task, at, start),
                trouble -> StepTask.Result.of(task.share(), trouble, at[0], System.nanoTime() - start));
    }

    /** Texts for the requests of one call, on an executor. */
    static DrawTask.Result draw(Broadcast<TrainingSetup> setup, Broadcast<byte[]> parameters, DrawTask task) {
        return onExecutor(
                setup,
                parameters,
                engine -> new DrawTask.Result(task.number(), engine.draw(task), null),
                trouble -> new DrawTask.Result(task.number(), List.of(), trouble));
    }

    /** With the session of a training, which has the threads of a task: one at a time. */
    private static <R> R onExecutor(
            Broadcast<TrainingSetup> setup,
            Broadcast<byte[]> parameters,
            Function<Engine, R> work,
            Function<Trouble, R> failed) {
        TrainingSetup known = setup.value();
        byte[] values = parameters.value(); // what is lost on the way is Spark's to try again
        synchronized (Engine.class) {
            try {
                if (current == null || !current.run.equals(known.run())) {
                    close();
                    current = new Engine(known);
                }
                current.take(values, parameters.id());
                return work.apply(current);
            } catch (TaskKilledException e) {
                throw e;
            } catch (Exception | LinkageError | OutOfMemoryError e) {
                return failed.apply(Trouble.of(SparkModel.here(), e));
            }
        }
    }

    private void take(byte[] values, long id) {
        if (id != parameters) {
            parameters = -1;
            worker.setParameters(GradientBytes.ofPlain(values));
            parameters = id;
        }
    }

    private List<GenerationResult> draw(DrawTask task) {
        List<GenerationResult> texts = worker.generate(task.requests(), Engine::isGivenUp);
        requireWanted();
        return texts;
    }

    private StepTask.Result compute(StepTask task, int[] at, long start) {
        List<NodeSum> sums = new ArrayList<>();
        List<float[]> logProbs = new ArrayList<>();
        long computing = System.nanoTime();
        List<Gradients> nodes = new ArrayList<>();
        List<Node> wanted = GradientTree.nodes(task.size(), task.share());
        for (Node node : wanted) {
            nodes.add(GradientTree.sum(
                    node, leaf -> leaf.size() > 1 ? null : leaf(task, leaf.from(), at, logProbs), this::plus));
        }
        computing = System.nanoTime() - computing;
        for (int i = 0; i < wanted.size(); i++) {
            Gradients sum = nodes.set(i, null);
            sums.add(new NodeSum(
                    wanted.get(i), sum.sums(), GradientBytes.encode(sum.values(), setup.format(), setup.compressed())));
        }
        return new StepTask.Result(task.share(), sums, null, -1, System.nanoTime() - start, computing, logProbs);
    }

    private static boolean isGivenUp() {
        TaskContext context = TaskContext.get();
        return context != null && context.isInterrupted();
    }

    private static void requireWanted() {
        if (isGivenUp()) {
            throw new TaskKilledException("the step was given up");
        }
    }

    /** Leaves come in their order. */
    private Gradients leaf(StepTask task, int number, int[] at, List<float[]> logProbs) {
        requireWanted();
        at[0] = number;
        Gradients one = worker.compute(task.batches().get(number - task.share().from()), task.first() + number);
        logProbs.add(worker.logProbs());
        return rounded(one, setup.format());
    }

    private Gradients plus(Gradients left, Gradients right) {
        return rounded(left.plus(right), setup.format());
    }

    static Gradients rounded(Gradients gradients, GradientFormat format) {
        return format == GradientFormat.BF16 ? gradients.roundedToBf16() : gradients;
    }

    /** Of the driver's adapter and the one made of its file here. */
    static void requireSame(Adapter here, Adapter driver) {
        if (!here.info().equals(driver.info())) {
            throw new MismatchException("the adapter cannot be sent to executors as it is: " + driver.info()
                    + " would arrive as " + here.info());
        }
    }

    /** Frees what the last training took. */
    static synchronized void close() {
        if (current != null) {
            current.worker.close();
            current.adapter.close();
            current = null;
        }
    }
}
