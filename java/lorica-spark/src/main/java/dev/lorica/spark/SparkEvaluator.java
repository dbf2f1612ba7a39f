package dev.lorica.spark;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.data.Batch;
import dev.lorica.data.Packer;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluation;
import dev.lorica.eval.Evaluator;
import dev.lorica.eval.Loss;
import dev.lorica.exceptions.LoricaException;
import java.io.Serializable;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.IntStream;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.broadcast.Broadcast;

/** Loss and perplexity of a large set of data, measured on the executors: the numbers of {@link Evaluator}, to the bit. */
public final class SparkEvaluator {
    private static final int TASKS_PER_EXECUTOR = 4;

    private final JavaSparkContext spark;
    private final SparkModel model;
    private final AdapterFiles adapter;

    /**
     * Of a base and an adapter.
     *
     * @param spark   which stays open
     * @param model   as executors find it
     * @param adapter as it is now; {@code null}: the base alone
     */
    public SparkEvaluator(JavaSparkContext spark, SparkModel model, Adapter adapter) {
        this.spark = Objects.requireNonNull(spark, "spark");
        this.model = Objects.requireNonNull(model, "model");
        this.adapter = adapter == null ? null : AdapterFiles.of(adapter);
    }

    private record Part(int first, List<Batch> batches) implements Serializable {}

    private record Losses(int first, List<double[]> sums, Trouble trouble) implements Serializable {}

    /**
     * Measures.
     *
     * @param data      which comes from the driver
     * @param batchSize examples that are processed at once
     * @return loss and perplexity over all of it
     */
    public Evaluation evaluate(TokenizedDataset data, int batchSize) {
        Packer.Batches batches = Packer.inOrder(Objects.requireNonNull(data, "data"), batchSize);
        int executors = Math.max(1, spark.sc().statusTracker().getExecutorInfos().length - 1);
        int parts = Math.min(batches.size(), TASKS_PER_EXECUTOR * executors);
        List<Part> all = new ArrayList<>();
        for (int i = 0; i < parts; i++) {
            int from = (int) ((long) batches.size() * i / parts);
            int to = (int) ((long) batches.size() * (i + 1) / parts);
            all.add(new Part(from, List.copyOf(batches.subList(from, to))));
        }
        Broadcast<AdapterFiles> files = adapter == null ? null : spark.broadcast(adapter);
        SparkModel named = model;
        ClusterJob<Losses> job = new ClusterJob<>(spark, all, part -> onExecutor(named, files, part));
        Map<Integer, Loss> known = new HashMap<>();
        try {
            for (int missing = parts; missing > 0; ) {
                Losses losses = job.next();
                if (losses == null) {
                    continue;
                }
                if (losses.trouble() != null) {
                    throw losses.trouble().exception();
                }
                missing--;
                for (int i = 0; i < losses.sums().size(); i++) {
                    double[] sum = losses.sums().get(i);
                    known.put(losses.first() + i, new Loss(sum[0], (long) sum[1]));
                }
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new LoricaException("the evaluation was interrupted", e);
        } finally {
            job.cancel();
            if (files != null) {
                files.destroy();
            }
        }
        Iterator<Integer> next = IntStream.range(0, batches.size()).iterator();
        return Evaluator.evaluate(batch -> known.get(next.next()), data, batchSize, () -> false);
    }

    private static Losses onExecutor(SparkModel named, Broadcast<AdapterFiles> files, Part part) {
        AdapterFiles adapter = files == null ? null : files.value();
        try {
            Model model = Engine.model(named);
            Evaluator evaluator = new Evaluator(model, adapter == null ? null : adapter.shared(named, model));
            List<double[]> sums = new ArrayList<>();
            for (Loss loss : evaluator.losses(part.batches())) {
                sums.add(new double[] {loss.sum(), loss.trained()});
            }
            return new Losses(part.first(), sums, null);
        } catch (Exception | LinkageError | OutOfMemoryError e) {
            return new Losses(part.first(), List.of(), Trouble.of(SparkModel.here(), e));
        }
    }
}
