package dev.lorica.spark;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * The module as it is packed, submitted as the README says, to executors that have Spark and nothing else. Run at {@code mvn verify}, when it
 * is packed.
 */
class PackagedIT {
    private static final Path PACKED = Path.of("target/spark").toAbsolutePath();

    @TempDir
    private Path work;

    /** A SPARK_HOME of Spark's jars alone, and a spark-submit that does what Spark's own does: it asks the launcher for the command. */
    private void makeSpark() throws IOException {
        Path jars = Files.createDirectories(work.resolve("spark/jars"));
        Set<String> ours;
        try (var lib = Files.list(PACKED.resolve("lib"))) {
            ours = lib.map(jar -> jar.getFileName().toString()).collect(Collectors.toSet());
        }
        for (String jar :
                Files.readString(PACKED.resolve("spark.classpath")).strip().split(":")) {
            Path path = Path.of(jar);
            if (!ours.contains(path.getFileName().toString())) {
                Files.createSymbolicLink(jars.resolve(path.getFileName()), path);
            }
        }
        Path submit = work.resolve("spark-submit");
        Files.writeString(
                submit,
                """
                #!/usr/bin/env bash
                java=$JAVA_HOME/bin/java
                mapfile -d '' -t command < <("$java" -XX:+UseSerialGC -cp "$SPARK_HOME/jars/*" \\
                    org.apache.spark.launcher.Main org.apache.spark.deploy.SparkSubmit "$@")
                # first come a zero and the end of a line, as the launcher has it
                command=("${command[@]:1}")
                command[0]=${command[0]#$'\\n'}
                exec "${command[@]}"
                """);
        submit.toFile().setExecutable(true);
    }

    /** What stands in the README's section, with the names and sizes of this test. */
    private String command(Path output) throws IOException {
        Matcher section = Pattern.compile(
                        "```sh\\ncd java/lorica-spark/target/spark\\n(spark-submit .*?)```", Pattern.DOTALL)
                .matcher(Files.readString(Clusters.repository().resolve("README.md")));
        assertThat(section.find()).isTrue();
        Map<String, String> here = Map.of(
                "--master yarn", "--master 'local-cluster[2,1,512]'",
                "--executor-cores 8", "--executor-cores 1",
                "--executor-memory 4g", "--conf spark.executor.memory=512m",
                "spark.task.cpus=8", "spark.task.cpus=1",
                "/models/llama.gguf", Clusters.model().toString(),
                "questions.json", work.resolve("questions.json").toString(),
                "my-adapter", output.toString());
        String command = section.group(1).strip();
        for (Map.Entry<String, String> one : here.entrySet()) {
            assertThat(command).contains(one.getKey());
            command = command.replace(one.getKey(), one.getValue());
        }
        return command;
    }

    private static final String[] SETTINGS = {"--max-steps", "2", "--lora-r", "4", "--threads", "1"};

    @Test
    void whatTheReadmeSubmitsTrainsOnTwoExecutors() throws Exception {
        makeSpark();
        Files.writeString(
                work.resolve("questions.json"),
                "[{\"question\": \"Who is he?\", \"answer\": \"Mr. Bennet.\"},"
                        + "{\"question\": \"Who is she?\", \"answer\": \"Mrs. Bennet.\"}]");
        Path submitted = work.resolve("submitted");
        Path log = work.resolve("log");
        ProcessBuilder builder = new ProcessBuilder("bash", "-c", command(submitted) + " " + String.join(" ", SETTINGS))
                .directory(PACKED.toFile())
                .redirectErrorStream(true)
                .redirectOutput(log.toFile());
        Map<String, String> environment = builder.environment();
        environment.put("SPARK_HOME", work.resolve("spark").toString());
        environment.put("PATH", work + ":" + environment.get("PATH"));
        environment.put("JAVA_HOME", System.getProperty("java.home"));
        environment.put("JDK_JAVA_OPTIONS", "-XX:+UseSerialGC -XX:TieredStopAtLevel=1");
        environment.remove("CLASSPATH");
        Process process = builder.start();
        try {
            assertThat(process.waitFor(15, TimeUnit.MINUTES)).isTrue();
        } finally {
            process.descendants().forEach(ProcessHandle::destroyForcibly);
            process.destroyForcibly();
        }
        assertThat(process.exitValue()).as(Files.readString(log)).isZero();

        assertThat(Files.readString(submitted.resolve("report.html")))
                .contains("spark-submit … --class dev.lorica.spark.SparkTrain lorica-spark.jar --config");

        Path here = work.resolve("here");
        Map<String, String> one = Map.of("spark.master", "local[1]", "spark.ui.enabled", "false");
        one.forEach(System::setProperty);
        try {
            assertThat(SparkTrain.run(
                            "--model", Clusters.model().toString(),
                            "--data", work.resolve("questions.json").toString(),
                            "--output", here.toString(),
                            "--batch-size", "2",
                            "--gradient-accumulation-steps", "32",
                            "--max-steps", "2",
                            "--lora-r", "4",
                            "--threads", "1"))
                    .isZero();
        } finally {
            one.keySet().forEach(System::clearProperty);
        }
        assertThat(Files.readAllBytes(submitted.resolve("adapter.gguf")))
                .isEqualTo(Files.readAllBytes(here.resolve("adapter.gguf")));
    }
}
