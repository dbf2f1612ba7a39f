package dev.lorica.spark;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The main class of spark-submit, by scripts/spark-local.sh. */
class SparkTrainTest {
    @TempDir
    private static Path work;

    @BeforeAll
    static void write() throws IOException {
        Files.writeString(
                work.resolve("data.json"),
                IntStream.range(0, 16)
                        .mapToObj(i ->
                                "{\"question\": \"Who is number " + i + "?\", \"answer\": \"Mr. Bennet, " + i + ".\"}")
                        .collect(Collectors.joining(",\n", "[", "]")));
    }

    private static Process submit(int executors, Path log, String... options) throws IOException {
        List<String> command = new ArrayList<>(List.of(
                Clusters.repository().resolve("scripts/spark-local.sh").toString(), Integer.toString(executors)));
        command.addAll(List.of(options));
        ProcessBuilder builder = new ProcessBuilder(command)
                .redirectErrorStream(true)
                .redirectOutput(log.toFile())
                .directory(work.toFile());
        Map<String, String> environment = builder.environment();
        environment.put("LORICA_SPARK_CLASS_PATH", System.getProperty("java.class.path"));
        environment.put("LORICA_SPARK_MEMORY", "512");
        environment.put("JDK_JAVA_OPTIONS", "-XX:+UseSerialGC -XX:TieredStopAtLevel=1");
        Files.createDirectories(Path.of(environment.get("SPARK_HOME"), "jars"));
        return builder.start();
    }

    private static String[] options(Path output, String... more) {
        List<String> all = new ArrayList<>(List.of(
                "--model", Clusters.model().toString(),
                "--data", work.resolve("data.json").toString(),
                "--output", output.toString(),
                "--lora-r", "4",
                "--lora-dropout", "0.1",
                "--max-steps", "4",
                "--batch-size", "1",
                "--gradient-accumulation-steps", "4",
                "--save-strategy", "steps",
                "--save-steps", "1",
                "--threads", "1"));
        all.addAll(List.of(more));
        return all.toArray(String[]::new);
    }

    /** In this JVM, which is a cluster of one then. */
    private static int here(String... options) {
        Map<String, String> settings = Map.of("spark.master", "local[1]", "spark.ui.enabled", "false");
        settings.forEach(System::setProperty);
        try {
            return SparkTrain.run(options);
        } finally {
            settings.keySet().forEach(System::clearProperty);
        }
    }

    private static void end(Process process, Path log) throws Exception {
        assertThat(process.waitFor(15, TimeUnit.MINUTES)).isTrue();
        assertThat(process.exitValue()).as(Files.readString(log)).isZero();
    }

    @Test
    void aDriverThatIsKilledGoesOnWithOtherExecutorsToTheSameBytes() throws Exception {
        Path whole = work.resolve("whole");
        assertThat(here(options(whole))).isZero();
        Path broken = work.resolve("broken");
        int tries = 0;
        while (!isKilledInTheMiddle(broken)) {
            assertThat(++tries).as("trainings that were through before").isLessThan(10);
            broken = work.resolve("broken-" + tries);
        }

        Path on = work.resolve("on.log");
        end(submit(1, on, options(broken, "--resume", "auto")), on);

        assertThat(Files.readString(on)).contains("checkpoint-", "scripts/lorica generate");
        assertThat(Files.readString(broken.resolve("report.html"))).contains("scripts/spark-local.sh 1 --config");
        assertThat(Files.readAllBytes(broken.resolve("adapter.gguf")))
                .isEqualTo(Files.readAllBytes(whole.resolve("adapter.gguf")));
    }

    /** False where this process was kept from its work for so long that all was trained. */
    private static boolean isKilledInTheMiddle(Path output) throws Exception {
        Path log = work.resolve("broken.log");
        Path checkpoint = output.resolve("checkpoint-2/SHA256SUMS");
        Process killed = submit(2, log, options(output));
        boolean isThere;
        try {
            while (killed.isAlive() && !Files.exists(checkpoint)) {
                Thread.sleep(5);
            }
            isThere = Files.exists(checkpoint);
        } finally {
            killed.descendants().forEach(ProcessHandle::destroyForcibly);
            killed.destroyForcibly().waitFor();
        }
        boolean isThrough = Files.exists(output.resolve("adapter.gguf"));
        assertThat(isThere || isThrough).as(Files.readString(log)).isTrue();
        return !isThrough;
    }

    @Test
    void whatIsWrongWithTheOptionsNeedsNoCluster() throws Exception {
        Path log = work.resolve("wrong.log");
        Process process = submit(1, log, options(work.resolve("wrong"), "--lora-rr", "4"));
        assertThat(process.waitFor(15, TimeUnit.MINUTES)).isTrue();

        assertThat(process.exitValue()).isEqualTo(2);
        assertThat(Files.readString(log)).contains("--lora-rr").doesNotContain("executor");
        assertThat(new File(work.toFile(), "wrong")).doesNotExist();
    }
}
