package dev.lorica.spark;

import dev.lorica.adapter.Adapter;
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.exceptions.InvalidArgumentException;
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
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
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
 * result does not depend on the executors, nor on which of them are lost meanwhile.
 */
public final class SparkWorkers implements GradientWorkers {
    /** {@code f32} or {@code bf16}: {@link GradientFormat}. */
    public static final String GRADIENTS = "spark.lorica.gradients";
    /** Whether gradients are compressed on their way; {@code true} unless it is said. */
    public static final String COMPRESS = "spark.lorica.gradients.compress";
    /** Seconds without an executor that takes a task after which a training gives up; 120 unless it is said. */
    public static final String WAIT = ClusterJob.WAIT;

    private final JavaSparkContext spark;
    private final SparkModel model;
    private final GradientFormat format;
    private final boolean compressed;
    private final List<StepTimes> times = new ArrayList<>();
    private Broadcast<TrainingSetup> setup;

    /**
     * What a step cost.
     *
     * @param seconds   from parameters to the sum of gradients
     * @param computing the longest time that gradients took on one executor; the rest is Spark's and the network's
     * @param sent      bytes of parameters, which go to each executor
     * @param received  bytes of gradients, of all executors
     * @param tasks     executors that took part
     */
    public record StepTimes(double seconds, double computing, long sent, long received, int tasks) {}

    /** With what the context's configuration says under {@link #GRADIENTS}, {@link #COMPRESS} and {@link #WAIT}. */
    public SparkWorkers(JavaSparkContext spark, SparkModel model) {
        this.spark = Objects.requireNonNull(spark, "spark");
        this.model = Objects.requireNonNull(model, "model");
        String name = spark.getConf().get(GRADIENTS, "f32");
        this.format = switch (name) {
            case "f32" -> GradientFormat.F32;
            case "bf16" -> GradientFormat.BF16;
            default -> throw new InvalidArgumentException(GRADIENTS + " is \"" + name + "\"; it is f32 or bf16");
        };
        this.compressed = spark.getConf().getBoolean(COMPRESS, true);
    }

    /** Of the steps so far. */
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
        byte[] values = GradientBytes.plain(parameters);
        Broadcast<byte[]> sent = spark.broadcast(values);
        try {
            return new Step(tasks, n, watch).run(sent, values.length, start);
        } finally {
            sent.destroy();
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
        if (setup != null) {
            setup.destroy();
            setup = null;
        }
    }
}
