package dev.lorica.spark;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.train.GradientSums;
import dev.lorica.train.GradientTree;
import dev.lorica.train.GradientTree.Node;
import dev.lorica.train.GradientWorkers;
import dev.lorica.train.Gradients;
import dev.lorica.train.Metrics;
import dev.lorica.train.Objective;
import dev.lorica.train.TrainingConfig;
import java.io.Serializable;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import java.util.stream.Collectors;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;

/**
 * Measures what a step costs beside its gradients, a line of JSON for each thing that was measured. {@code scripts/spark-cost.sh} runs it
 * and reckons with it.
 *
 * <ul>
 *   <li>{@code way MEGABYTES…}: the way of parameters to the executors and of gradients back, as {@link SparkWorkers} goes it, with
 *       numbers in the place of gradients, and where the time goes;
 *   <li>{@code step MODEL MICRO-BATCHES TOKENS STEPS}: whole steps, with so many micro-batches of so many tokens for each executor, rank 16
 *       on all linear layers.
 * </ul>
 */
public final class SparkCost {
    private static final int ROUNDS = 7;
    private static final int WARM_UP = 2;
    /** Of the first, which warms up the JVMs for all. */
    private static final int FIRST_WARM_UP = 12;

    private SparkCost() {}

    /**
     * Measures.
     *
     * @param options what, as above
     * @throws InterruptedException when it is interrupted
     */
    public static void main(String[] options) throws InterruptedException {
        try (JavaSparkContext spark = new JavaSparkContext(SparkTrain.configured(new SparkConf()))) {
            int executors = Integer.parseInt(spark.getConf().get("spark.lorica.cost.executors"));
            while (spark.sc().statusTracker().getExecutorInfos().length <= executors) {
                Thread.sleep(50);
            }
            List<String> rest = Arrays.asList(options).subList(1, options.length);
            if (options[0].equals("way")) {
                way(spark, executors, rest.stream().map(Double::valueOf).toList());
            } else {
                steps(
                        spark,
                        executors,
                        Path.of(rest.get(0)),
                        Integer.parseInt(rest.get(1)),
                        Integer.parseInt(rest.get(2)),
                        Integer.parseInt(rest.get(3)));
            }
        }
    }

    /** @param sizes megabytes of gradients (f32) */
    private static void way(JavaSparkContext spark, int executors, List<Double> sizes) throws InterruptedException {
        int warmUp = FIRST_WARM_UP;
        List<Double> all = new ArrayList<>(sizes);
        all.add(0, 0.0);
        for (double megabytes : all) {
            for (GradientFormat format : GradientFormat.values()) {
                for (boolean compressed : new boolean[] {false, true}) {
                    if (megabytes > 0 || format == GradientFormat.F32 && !compressed) {
                        print(new Way(spark, executors, megabytes, format, compressed).measure(warmUp));
                        warmUp = WARM_UP;
                    }
                }
            }
        }
    }

    /**
     * What comes from an executor, with when it was where, in milliseconds of the machine's clock.
     *
     * @param gradients as they travel
     * @param started   when the task began
     * @param fetched   when the parameters had come
     * @param unpacked  when they were numbers again
     * @param packed    when the gradients were bytes
     */
    private record Sent(byte[] gradients, double started, double fetched, double unpacked, double packed)
            implements Serializable {}

    private static double clock() {
        java.time.Instant now = java.time.Instant.now();
        return now.getEpochSecond() * 1e3 + now.getNano() / 1e6;
    }

    /** One size and format. */
    private record Way(
            JavaSparkContext spark, int executors, double megabytes, GradientFormat format, boolean compressed) {

        Map<String, Object> measure(int warmUp) throws InterruptedException {
            float[] parameters = normal((int) (megabytes * 1e6 / 4));
            List<Map<String, Double>> rounds = new ArrayList<>();
            long[] bytes = {0};
            for (int round = -warmUp; round < ROUNDS; round++) {
                Map<String, Double> parts = round(parameters, bytes);
                if (round >= 0) {
                    rounds.add(parts);
                }
            }
            Map<String, Object> row = new LinkedHashMap<>();
            row.put("kind", "way");
            row.put("executors", executors);
            row.put("megabytes", megabytes);
            row.put("format", format.name().toLowerCase(Locale.ROOT));
            row.put("compressed", compressed);
            row.put("parameter_bytes", 4L * parameters.length);
            row.put("gradient_bytes", bytes[0]);
            row.put("least", sorted(rounds, "seconds")[0]);
            row.put("most", sorted(rounds, "seconds")[ROUNDS - 1]);
            for (String part : rounds.get(0).keySet()) {
                row.put(part, sorted(rounds, part)[ROUNDS / 2]);
            }
            return row;
        }

        private static double[] sorted(List<Map<String, Double>> rounds, String part) {
            return rounds.stream()
                    .mapToDouble(round -> round.get(part))
                    .sorted()
                    .toArray();
        }

        private Map<String, Double> round(float[] parameters, long[] bytes) throws InterruptedException {
            double start = clock();
            Broadcast<byte[]> sent = spark.broadcast(GradientBytes.plain(parameters));
            double broadcast = clock();
            List<Integer> tasks = new ArrayList<>();
            for (int i = 0; i < executors; i++) {
                tasks.add(i);
            }
            GradientFormat as = format;
            boolean packed = compressed;
            ClusterJob<Sent> job = new ClusterJob<>(spark, tasks, i -> onExecutor(sent, as, packed));
            Map<Node, Gradients> known = new HashMap<>();
            Map<String, Double> parts = new LinkedHashMap<>();
            parts.put("broadcast", (broadcast - start) / 1e3);
            double adding = 0;
            while (known.size() < executors) {
                Sent result = job.next();
                if (result == null) {
                    continue;
                }
                double arrived = clock();
                most(parts, "start", result.started() - broadcast);
                most(parts, "fetch", result.fetched() - result.started());
                most(parts, "unpack", result.unpacked() - result.fetched());
                most(parts, "pack", result.packed() - result.unpacked());
                most(parts, "return", arrived - result.packed());
                bytes[0] = result.gradients().length;
                known.put(
                        new Node(known.size(), known.size() + 1),
                        new Gradients(
                                GradientBytes.decode(result.gradients(), format),
                                new GradientSums(0, 0, 0, 0, new Metrics(Map.of()))));
                adding += clock() - arrived;
            }
            double last = clock();
            GradientTree.sum(new Node(0, executors), known::remove, Gradients::plus);
            adding += clock() - last;
            parts.put("sum", adding / 1e3);
            sent.destroy();
            parts.put("seconds", (clock() - start) / 1e3);
            return parts;
        }

        private static void most(Map<String, Double> parts, String name, double milliseconds) {
            parts.merge(name, milliseconds / 1e3, Math::max);
        }
    }

    private static Sent onExecutor(Broadcast<byte[]> parameters, GradientFormat format, boolean compressed) {
        double start = clock();
        byte[] bytes = parameters.value();
        double fetched = clock();
        float[] values = GradientBytes.ofPlain(bytes);
        double unpacked = clock();
        Gradients gradients =
                Engine.rounded(new Gradients(values, new GradientSums(0, 0, 0, 0, new Metrics(Map.of()))), format);
        byte[] packed = GradientBytes.encode(gradients.values(), format, compressed);
        return new Sent(packed, start, fetched, unpacked, clock());
    }

    /** As gradients are: of all magnitudes around a small one. */
    private static float[] normal(int n) {
        Random random = new Random(1);
        float[] values = new float[n];
        for (int i = 0; i < n; i++) {
            values[i] = (float) (random.nextGaussian() * 1e-4);
        }
        return values;
    }

    private static void steps(
            JavaSparkContext spark, int executors, Path file, int microBatches, int tokens, int steps) {
        ModelConfig how = new ModelConfig("cpu", Precision.AUTO, 1);
        LoraConfig lora =
                LoraConfig.builder().rank(16).targetModules("all-linear").build();
        try (Model model = Model.load(file, how);
                Adapter adapter = Adapter.create(model, lora);
                SparkWorkers workers = new SparkWorkers(
                        spark, SparkModel.of(file, model, new ModelConfig("cpu", Precision.AUTO, 0)))) {
            Random random = new Random(1);
            List<Batch> group = new ArrayList<>();
            for (int i = 0; i < executors * microBatches; i++) {
                int[] ids = random.ints(tokens, 3, model.info().vocabSize()).toArray();
                int[] labels = Arrays.copyOfRange(ids, 1, tokens + 1);
                labels[tokens - 1] = Batch.IGNORE;
                group.add(Batch.of(ids, labels, tokens));
            }
            workers.open(adapter, TrainingConfig.defaults(), Objective.sft(), BatchShape.of(group.get(0)));
            float[] parameters = new float[(int) adapter.info().parameters()];
            GradientWorkers.Watch watch = number -> true;
            // One micro-batch each, so that the model is open and the JVM has seen the way.
            workers.compute(parameters, group.subList(0, executors), 0, watch);
            for (int step = 0; step < steps; step++) {
                parameters[0] = step + 1; // others than before
                workers.compute(parameters, group, 0, watch);
                SparkWorkers.StepTimes times = workers.times().get(step + 1);
                Map<String, Object> row = new LinkedHashMap<>();
                row.put("kind", "step");
                row.put("executors", executors);
                row.put("micro_batches", microBatches);
                row.put("tokens", tokens);
                row.put("parameters", adapter.info().parameters());
                row.put("seconds", times.seconds());
                row.put("computing", times.computing());
                row.put("sent", times.sent());
                row.put("received", times.received());
                print(row);
            }
        }
    }

    private static void print(Map<String, Object> row) {
        System.out.println(row.entrySet().stream()
                .map(entry -> "\"" + entry.getKey() + "\": "
                        + (entry.getValue() instanceof String word
                                ? "\"" + word + "\""
                                : entry.getValue() instanceof Double number
                                        ? String.format(Locale.ROOT, "%.6f", number)
                                        : entry.getValue()))
                .collect(Collectors.joining(", ", "{", "}")));
    }
}
