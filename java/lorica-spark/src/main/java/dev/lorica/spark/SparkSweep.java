package dev.lorica.spark;

import dev.lorica.cli.LoricaCli;
import dev.lorica.cli.SweepRun;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BiConsumer;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;

/**
 * {@code lorica sweep} on a Spark cluster, for {@code spark-submit}: each run is a task, on a machine that has the model and the data at
 * the paths that are named. Options, files and exit codes are those of {@code lorica sweep}; what runs make comes to the driver, and a
 * sweep that was killed goes on when the same command is given again.
 */
public final class SparkSweep {
    private SparkSweep() {}

    /**
     * What {@code spark-submit} calls.
     *
     * @param options those of {@code lorica sweep}
     */
    public static void main(String[] options) {
        int code = LoricaCli.sweep(
                (runs, done) -> {
                    try (JavaSparkContext spark = new JavaSparkContext(SparkTrain.configured(new SparkConf()))) {
                        run(spark, runs, done);
                    }
                },
                options);
        if (code != 0) {
            System.exit(code);
        }
    }

    static void run(JavaSparkContext spark, List<SweepRun> runs, BiConsumer<SweepRun, SweepRun.Outcome> done) {
        Map<String, SweepRun> byName = new HashMap<>();
        runs.forEach(run -> byName.put(run.name(), run));
        ClusterJob<Ended> job = new ClusterJob<>(spark, runs, SparkSweep::onExecutor);
        try {
            for (int missing = runs.size(); missing > 0; ) {
                Ended ended = job.next();
                if (ended != null) {
                    missing--;
                    done.accept(byName.get(ended.name()), ended.outcome());
                }
            }
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        } finally {
            job.cancel();
        }
    }

    private record Ended(String name, SweepRun.Outcome outcome) implements java.io.Serializable {}

    private static Ended onExecutor(SweepRun run) {
        SweepRun.Outcome outcome;
        // Runs have all the threads of a task; two at once in one JVM would share them.
        synchronized (SparkSweep.class) {
            outcome = run.run();
        }
        String error = outcome.error() == null ? null : "on " + SparkModel.here() + ": " + outcome.error();
        return new Ended(run.name(), new SweepRun.Outcome(outcome.code(), error, outcome.log(), outcome.files()));
    }
}
