package dev.lorica.spark;

import dev.lorica.cli.LoricaCli;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;

/**
 * {@code lorica train} on a Spark cluster, for {@code spark-submit}: its options are those of {@code lorica train}, its exit codes too.
 * What concerns the way through the cluster are settings of Spark: {@link SparkWorkers#GRADIENTS}, {@link SparkWorkers#COMPRESS},
 * {@link SparkWorkers#WAIT}.
 */
public final class SparkTrain {
    /** What the program names where it says how a training goes on. */
    private static final String COMMAND = "lorica.command.train";

    private SparkTrain() {}

    /**
     * Trains.
     *
     * @param options those of {@code lorica train}
     */
    public static void main(String[] options) {
        if (System.getProperty(COMMAND) == null) {
            System.setProperty(COMMAND, "spark-submit … --class " + SparkTrain.class.getName() + " lorica-spark.jar");
        }
        int code = run(options);
        if (code != 0) {
            System.exit(code);
        }
    }

    /** Returns the exit code. */
    static int run(String... options) {
        SparkConf conf = configured(new SparkConf());
        // Made when a training begins: what is wrong with the options needs no cluster.
        JavaSparkContext[] context = new JavaSparkContext[1];
        try {
            return LoricaCli.train(
                    (name, model, config) -> {
                        if (context[0] == null) {
                            context[0] = new JavaSparkContext(conf);
                        }
                        return new SparkWorkers(context[0], SparkModel.of(name, model, config));
                    },
                    options);
        } finally {
            if (context[0] != null) {
                context[0].stop();
            }
        }
    }

    /** With what suits trainings, where nothing else was said. */
    static SparkConf configured(SparkConf conf) {
        return conf.setIfMissing("spark.app.name", "lorica train")
                .setIfMissing("spark.log.level", "WARN")
                // Gradients of many executors may be more than the gigabyte that Spark allows.
                .setIfMissing("spark.driver.maxResultSize", "0")
                // Parameters are noise to a compressor.
                .setIfMissing("spark.broadcast.compress", "false");
    }
}
