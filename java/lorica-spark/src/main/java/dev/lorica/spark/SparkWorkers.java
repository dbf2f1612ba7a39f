package dev.lorica.spark;

import dev.lorica.adapter.Adapter;
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.generate.BatchGenerator;
import dev.lorica.generate.GenerationResult;
import dev.lorica.train.GradientTree;
import dev.lorica.train.GradientTree.Node;
import dev.lorica.train.GradientWorkers;
import dev.lorica.train.Gradients;
import dev.lorica.train.Objective;
import dev.lorica.train.TrainingConfig;
import java.io.IOException;
import java.io.ObjectOutputStream;
import java.io.OutputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.function.BooleanSupplier;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;

/**
 * The executors of a Spark cluster, which compute the gradients of a training.
 *
 * <pre>{@code
 * try (Model model = Model.load(file); Adapter adapter = Adapter.create(model, LoraConfig.defaults())) {
 *     new Trainer(model, adapter, TrainingConfig.builder().gradientAccumulationSteps(16).build())
 *             .workers(new SparkWorkers(spark, SparkModel.of(model)))
 *             .train(examples);
 * }
 * }</pre>
 *
 * An optimizer step is one Spark job. Its micro-batches, {@code gradientAccumulationSteps}, are shared out among the executors; each
 * adds up what it computes and sends the sum once, where its share is a power of two. Sums are those of {@link GradientTree}, so the
 * result does not depend on the executors, nor on which of them are lost meanwhile. Where a model learns from its own answers
 * ({@link Objective#grpo}), a job before draws them, with a task for each micro-batch of prompts.
 */
public final class SparkWorkers implements GradientWorkers {
    /** {@code f32} or {@code bf16}: {@link GradientFormat}. */
    public static final String GRADIENTS = "spark.lorica.gradients";
    /**
     * Whether gradients are compressed on their way; {@code false} unless it is said. It takes a sixth off f32 and a third off bf16, and
     * more time than that saves where executors are few or the network is quick.
     */
    public static final String COMPRESS = "spark.lorica.gradients.compress";
    /** Seconds without an executor that takes a task after which a training gives up; 120 unless it is said. */
    public static final String WAIT = ClusterJob.WAIT;

    private final JavaSparkContext spark;
    private final SparkModel model;
    private final GradientFormat format;
    private final boolean compressed;
    private final List<StepTimes> times = new ArrayList<>();
    private Broadcast<TrainingSetup> setup;
    /** The parameters that executors were sent last, and what they were. */
    private Broadcast<byte[]> parameters;

    private byte[] known = {};

    /**
     * What a step cost.
     *
     * @param seconds   from parameters to the sum of gradients
     * @param computing the longest time that gradients took on one executor; the rest is Spark's and the network's
     * @param sent      bytes of parameters, which go to each executor; 0 where it had them, from drawing answers with them
     * @param received  bytes of gradients, of all executors
     * @param tasks     executors that took part
     */
    public record StepTimes(double seconds, double computing, long sent, long received, int tasks) {}

    /**
     * With what the context's configuration says under {@link #GRADIENTS}, {@link #COMPRESS} and {@link #WAIT}.
     *
     * @param spark the cluster, which stays the caller's
     * @param model as executors find it
     * @throws InvalidArgumentException if the configuration names no format of gradients that there is
     */
    public SparkWorkers(JavaSparkContext spark, SparkModel model) {
        this.spark = Objects.requireNonNull(spark, "spark");
        this.model = Objects.requireNonNull(model, "model");
        String name = spark.getConf().get(GRADIENTS, "f32");
        this.format = switch (name) {
            case "f32" -> GradientFormat.F32;
            case "bf16" -> GradientFormat.BF16;
            default -> throw new InvalidArgumentException(GRADIENTS + " is \"" + name + "\"; it is f32 or bf16");
        };
        this.compressed = spark.getConf().getBoolean(COMPRESS, false);
    }

    /** {@return what each step so far cost, answers that were drawn for it apart} */
    public List<StepTimes> times() {
        return List.copyOf(times);
    }

    @Override
    public void open(Adapter adapter, TrainingConfig config, Objective objective, BatchShape shape) {
        byte[] file = Engine.bytes(adapter);
        try (Adapter arriving = Engine.load(adapter.model(), file)) {
            Engine.requireSame(arriving, adapter);
        }
        TrainingSetup all = new TrainingSetup(
                UUID.randomUUID().toString(), model, file, config, objective, shape, format, compressed);
        requireSerializable(objective);
        setup = spark.broadcast(all);
    }

    private static void requireSerializable(Objective objective) {
        try (ObjectOutputStream out = new ObjectOutputStream(OutputStream.nullOutputStream())) {
            out.writeObject(objective);
        } catch (IOException e) {
            throw new InvalidArgumentException("the objective " + objective.name() + " cannot be sent to executors ("
                    + e + "); what it holds must be serializable");
        }
    }

    /** Executors at present; a local context is one. */
    private int executors() {
        return Math.max(1, spark.sc().statusTracker().getExecutorInfos().length - 1);
    }

    @Override
    public Gradients compute(float[] parameters, List<Batch> group, long first, Watch watch) {
        long start = System.nanoTime();
        int n = group.size();
        for (int i = 0; i < n; i++) {
            if (!watch.begins(i)) {
                return null;
            }
        }
        List<StepTask> tasks = new ArrayList<>();
        for (Node share : GradientTree.shares(n, executors())) {
            tasks.add(new StepTask(n, share, List.copyOf(group.subList(share.from(), share.to())), first));
        }
        long sent = send(parameters);
        return new Step(tasks, n, watch).run(this.parameters, sent, start);
    }

    /** Sends parameters to the executors, where they are others than the last; returns how many bytes go to each. */
    private long send(float[] values) {
        byte[] bytes = GradientBytes.plain(values);
        if (parameters != null && Arrays.equals(bytes, known)) {
            return 0;
        }
        forgetParameters();
        parameters = spark.broadcast(bytes);
        known = bytes;
        return bytes.length;
    }

    private void forgetParameters() {
        if (parameters != null) {
            parameters.destroy();
            parameters = null;
            known = new byte[0];
        }
    }

    @Override
    public List<List<GenerationResult>> generate(
            float[] values, List<List<BatchGenerator.Request>> calls, BooleanSupplier stop) {
        send(values);
        List<DrawTask> tasks = new ArrayList<>();
        for (List<BatchGenerator.Request> requests : calls) {
            tasks.add(new DrawTask(tasks.size(), List.copyOf(requests)));
        }
        List<List<GenerationResult>> texts = new ArrayList<>(Collections.nCopies(calls.size(), null));
        Broadcast<TrainingSetup> all = setup;
        Broadcast<byte[]> sent = parameters;
        ClusterJob<DrawTask.Result> job = new ClusterJob<>(spark, tasks, task -> Engine.draw(all, sent, task));
        boolean done = false;
        try {
            for (int missing = tasks.size(); missing > 0; ) {
                DrawTask.Result result = job.next();
                if (result == null) {
                    if (stop.getAsBoolean()) {
                        return null;
                    }
                    continue;
                }
                if (result.trouble() != null) {
                    throw result.trouble().exception();
                }
                texts.set(result.number(), result.texts());
                missing--;
            }
            done = true;
            return texts;
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            return null;
        } finally {
            if (!done) {
                job.cancel();
            }
        }
    }

    /** One job. */
    private final class Step {
        private final List<StepTask> tasks;
        private final int size;
        private final Watch watch;
        private final Map<Node, Gradients> known = new HashMap<>();

        Step(List<StepTask> tasks, int size, Watch watch) {
            this.tasks = tasks;
            this.size = size;
            this.watch = watch;
        }

        Gradients run(Broadcast<byte[]> parameters, long sent, long start) {
            Broadcast<TrainingSetup> known = setup;
            ClusterJob<StepTask.Result> job =
                    new ClusterJob<>(spark, tasks, task -> Engine.compute(known, parameters, task));
            boolean done = false;
            try {
                Gradients sum = collect(job, sent, start);
                done = sum != null;
                return sum;
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                return null;
            } finally {
                if (!done) {
                    job.cancel();
                }
            }
        }

        private Gradients collect(ClusterJob<StepTask.Result> job, long sent, long start) throws InterruptedException {
            int missing = tasks.size();
            long computing = 0;
            long received = 0;
            while (missing > 0) {
                StepTask.Result result = job.next();
                if (result == null) {
                    if (!watch.begins(0)) {
                        return null;
                    }
                    continue;
                }
                if (result.trouble() != null) {
                    if (result.failed() >= 0) {
                        watch.fails(result.failed());
                    }
                    throw result.trouble().exception();
                }
                missing--;
                computing = Math.max(computing, result.computing());
                for (StepTask.NodeSum sum : result.sums()) {
                    received += sum.gradients().length;
                    known.put(sum.node(), new Gradients(GradientBytes.decode(sum.gradients(), format), sum.sums()));
                }
                for (int i = result.share().from(); i < result.share().to(); i++) {
                    float[] logProbs = result.logProbs().get(i - result.share().from());
                    if (logProbs != null) {
                        watch.drewWith(i, logProbs);
                    }
                    watch.ends(i);
                }
            }
            Gradients all = GradientTree.sum(
                    new Node(0, size), known::remove, (left, right) -> Engine.rounded(left.plus(right), format));
            times.add(new StepTimes((System.nanoTime() - start) / 1e9, computing / 1e9, sent, received, tasks.size()));
            return all;
        }
    }

    @Override
    public void close() {
        forgetParameters();
        if (setup != null) {
            setup.destroy();
            setup = null;
        }
    }
}
