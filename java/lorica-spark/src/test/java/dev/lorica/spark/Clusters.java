package dev.lorica.spark;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaSparkContext;
import scala.jdk.javaapi.CollectionConverters;

/** Clusters of this machine, with executors in processes of their own. */
final class Clusters {
    private static final double PATIENCE_NANOS = 300e9;
    /** Executors of the present cluster that were killed. */
    private static final AtomicInteger KILLED = new AtomicInteger();

    private Clusters() {}

    /** So many executors, which have a core and half a gigabyte each. */
    static JavaSparkContext of(int executors, Map<String, String> settings) {
        makeSparkHome();
        SparkConf conf = new SparkConf()
                .setMaster("local-cluster[" + executors + ",1,512]")
                .set("spark.executor.memory", "512m")
                .set("spark.executor.extraClassPath", System.getProperty("java.class.path"))
                .set("spark.executor.extraJavaOptions", "-XX:+UseSerialGC -XX:TieredStopAtLevel=1")
                .set("spark.ui.enabled", "false")
                .set("spark.log.level", "ERROR")
                .set("spark.driver.host", "localhost")
                .set("spark.driver.bindAddress", "127.0.0.1");
        settings.forEach(conf::set);
        KILLED.set(0);
        JavaSparkContext spark = new JavaSparkContext(SparkTrain.configured(conf));
        await(spark, executors);
        return spark;
    }

    /** Waits until there are so many executors, those among them that take the places of killed ones, whose numbers come after theirs. */
    static void await(JavaSparkContext spark, int executors) {
        long start = System.nanoTime();
        while (true) {
            List<Integer> known = CollectionConverters.asJava(spark.sc().getExecutorIds()).stream()
                    .map(Integer::valueOf)
                    .toList();
            int newest = known.stream().mapToInt(Integer::intValue).max().orElse(-1);
            int seen = spark.sc().statusTracker().getExecutorInfos().length - 1; // the driver is one of them
            if (known.size() == executors && seen == executors && newest >= executors - 1 + KILLED.get()) {
                return;
            }
            if (System.nanoTime() - start > PATIENCE_NANOS) {
                throw new IllegalStateException("there are no " + executors + " executors after five minutes");
            }
            try {
                Thread.sleep(50);
            } catch (InterruptedException e) {
                throw new IllegalStateException(e);
            }
        }
    }

    static void kill(ProcessHandle executor) {
        KILLED.incrementAndGet();
        executor.destroyForcibly();
    }

    /** Where Spark looks for jars; it finds none, and needs none besides the class path. */
    private static void makeSparkHome() {
        try {
            Files.createDirectories(Path.of(System.getenv("SPARK_HOME"), "jars"));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    static JavaSparkContext of(int executors) {
        return of(executors, Map.of());
    }

    /** The processes of the executors that this JVM has started. */
    static List<ProcessHandle> executors() {
        return ProcessHandle.current()
                .descendants()
                .filter(process -> commandLine(process).contains("CoarseGrainedExecutorBackend"))
                .toList();
    }

    /** What ProcessHandle leaves out when it is long, as with a class path in it. */
    private static String commandLine(ProcessHandle process) {
        try {
            return Files.readString(Path.of("/proc/" + process.pid() + "/cmdline"), StandardCharsets.ISO_8859_1);
        } catch (IOException e) {
            return ""; // it has ended
        }
    }

    static Path repository() {
        return Path.of(System.getProperty("lorica.repository", "../.."))
                .toAbsolutePath()
                .normalize();
    }

    static Path model() {
        return repository().resolve("models/austen-7m-q4_0.gguf");
    }
}
