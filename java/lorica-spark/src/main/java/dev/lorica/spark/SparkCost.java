package dev.lorica.spark;

import dev.lorica.train.GradientSums;
import dev.lorica.train.GradientTree;
import dev.lorica.train.GradientTree.Node;
import dev.lorica.train.Gradients;
import dev.lorica.train.Metrics;
import java.io.Serializable;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;

/**
 * Measures what a step costs beside its gradients: the way of parameters to the executors and of gradients back, as
 * {@link SparkWorkers} goes it, with numbers in the place of gradients. {@code scripts/spark-cost.sh} runs it and reckons with it.
 */
public final class SparkCost {
    private static final int ROUNDS = 9;
    private static final int WARM_UP = 4;

    private SparkCost() {}

    /** @param sizes megabytes of gradients (f32) */
    public static void main(String[] sizes) throws InterruptedException {
        try (JavaSparkContext spark = new JavaSparkContext(SparkTrain.configured(new SparkConf()))) {
            int executors = Integer.parseInt(spark.getConf().get("spark.lorica.cost.executors"));
            while (spark.sc().statusTracker().getExecutorInfos().length <= executors) {
                Thread.sleep(50);
            }
            List<Double> all = new ArrayList<>();
            all.add(0.0);
            Arrays.stream(sizes).map(Double::valueOf).forEach(all::add);
            for (double megabytes : all) {
                for (GradientFormat format : GradientFormat.values()) {
                    for (boolean compressed : new boolean[] {false, true}) {
                        if (megabytes > 0 || format == GradientFormat.F32 && !compressed) {
                            print(spark, executors, megabytes, format, compressed);
                        }
                    }
                }
            }
        }
    }

    private record Sent(byte[] gradients, double encoding) implements Serializable {}

    private static void print(
            JavaSparkContext spark, int executors, double megabytes, GradientFormat format, boolean compressed)
            throws InterruptedException {
        int n = (int) (megabytes * 1e6 / 4);
        float[] parameters = normal(n);
        double[][] rounds = new double[ROUNDS][];
        long bytes = 0;
        for (int round = -WARM_UP; round < ROUNDS; round++) {
            long start = System.nanoTime();
            Broadcast<byte[]> sent = spark.broadcast(GradientBytes.plain(parameters));
            List<Integer> tasks = new ArrayList<>();
            for (int i = 0; i < executors; i++) {
                tasks.add(i);
            }
            ClusterJob<Sent> job = new ClusterJob<>(spark, tasks, i -> onExecutor(sent, format, compressed));
            Map<Node, Gradients> known = new HashMap<>();
            double encoding = 0;
            double decoding = 0;
            while (known.size() < executors) {
                Sent result = job.next();
                if (result == null) {
                    continue;
                }
                long decode = System.nanoTime();
                bytes = result.gradients().length;
                encoding = Math.max(encoding, result.encoding());
                known.put(
                        new Node(known.size(), known.size() + 1),
                        new Gradients(
                                GradientBytes.decode(result.gradients(), format),
                                new GradientSums(0, 0, 0, 0, new Metrics(Map.of()))));
                decoding += (System.nanoTime() - decode) / 1e9;
            }
            long adding = System.nanoTime();
            GradientTree.sum(new Node(0, executors), known::remove, Gradients::plus);
            double added = (System.nanoTime() - adding) / 1e9;
            sent.destroy();
            if (round >= 0) {
                rounds[round] = new double[] {(System.nanoTime() - start) / 1e9, encoding, decoding + added};
            }
        }
        Arrays.sort(rounds, (a, b) -> Double.compare(a[0], b[0]));
        double[] median = rounds[ROUNDS / 2];
        System.out.printf(
                Locale.ROOT,
                "{\"executors\": %d, \"megabytes\": %.3f, \"format\": \"%s\", \"compressed\": %b, \"parameter_bytes\": %d,"
                        + " \"gradient_bytes\": %d, \"seconds\": %.4f, \"least\": %.4f, \"most\": %.4f,"
                        + " \"encoding\": %.4f, \"driver\": %.4f}%n",
                executors,
                megabytes,
                format.name().toLowerCase(Locale.ROOT),
                compressed,
                4L * n,
                bytes,
                median[0],
                rounds[0][0],
                rounds[ROUNDS - 1][0],
                median[1],
                median[2]);
    }

    private static Sent onExecutor(Broadcast<byte[]> parameters, GradientFormat format, boolean compressed) {
        long start = System.nanoTime();
        float[] values = GradientBytes.ofPlain(parameters.value());
        Gradients gradients =
                Engine.rounded(new Gradients(values, new GradientSums(0, 0, 0, 0, new Metrics(Map.of()))), format);
        byte[] bytes = GradientBytes.encode(gradients.values(), format, compressed);
        return new Sent(bytes, (System.nanoTime() - start) / 1e9);
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
}
