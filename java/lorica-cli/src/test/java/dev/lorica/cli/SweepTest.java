package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Many runs of {@code train}. */
class SweepTest {
    @TempDir
    Path folder;

    private Path data;

    @BeforeEach
    void writeData() throws IOException {
        data = Files.writeString(
                folder.resolve("data.json"),
                "[{\"question\": \"Who?\", \"answer\": \"He.\"}, {\"question\": \"Where?\", \"answer\": \"There.\"}]");
    }

    private String[] command(Path output, String... more) {
        return Program.with(
                new String[] {
                    "sweep",
                    "--model",
                    Program.model(),
                    "--data",
                    data.toString(),
                    "--eval-data",
                    data.toString(),
                    "--output",
                    output.toString(),
                    "--target-modules=q_proj",
                    "--batch-size=1",
                    "--max-steps=4",
                    "--save-steps=1",
                    "--report-to=none",
                    "--threads=1",
                    "--json"
                },
                more);
    }

    /** The runs in their order, without what depends on the clock and on what else the process did. */
    private static List<JsonNode> table(JsonNode json) {
        List<JsonNode> runs = new ArrayList<>();
        for (JsonNode run : json.path("runs")) {
            String output = run.path("output").asText();
            runs.add(((ObjectNode) run.deepCopy())
                    .put("output", output.substring(output.lastIndexOf('/') + 1))
                    .without(List.of("seconds", "peak_memory_bytes", "planned_memory_bytes", "answers")));
        }
        return runs;
    }

    @Test
    void eightRunsKilledInTheMiddleAndStartedAgainGiveTheSameTable() throws Exception {
        String[] grid = {"--grid=lora-r=1,2", "--grid=learning-rate=1e-3,1e-2", "--grid", "lora_alpha=4,8"};
        JsonNode whole =
                Program.run(command(folder.resolve("whole"), grid)).succeeds().json();
        assertThat(whole.path("metric").asText()).isEqualTo("eval_loss");
        assertThat(whole.path("runs")).hasSize(8);
        assertThat(table(whole).stream().map(run -> run.path("eval_loss").asDouble()))
                .isSorted();
        assertThat(whole.path("best").asText())
                .isEqualTo(whole.path("runs").get(0).path("output").asText());

        Path killed = folder.resolve("killed");
        int tries = 0;
        while (!isKilledInTheMiddle(killed, grid)) {
            assertThat(++tries).as("sweeps that were through before").isLessThan(10);
            killed = folder.resolve("killed-" + tries);
        }

        Program again = Program.run(command(killed, grid)).succeeds();

        assertThat(again.err()).contains("run 3 of 8: lora-r 1, learning-rate 1e-2, lora-alpha 4: done before");
        assertThat(table(again.json())).isEqualTo(table(whole));
        Program.run(command(killed, "--grid=lora-r=1,4"))
                .failsWith(ExitCode.FAILED, "holds a sweep of other options", "--overwrite");
    }

    /** False where this process was kept from its work for so long that the sweep came to its end. */
    private boolean isKilledInTheMiddle(Path killed, String... grid) throws Exception {
        List<String> line = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")),
                LoricaCli.class.getName()));
        line.addAll(List.of(command(killed, grid)));
        Process process = new ProcessBuilder(line)
                .redirectErrorStream(true)
                .redirectOutput(folder.resolve("said.txt").toFile())
                .start();
        Path checkpoint = killed.resolve("04-lora-r=1-learning-rate=1e-2-lora-alpha=8/checkpoint-2");
        while (process.isAlive() && !Files.exists(checkpoint)) {
            Thread.sleep(2);
        }
        process.destroyForcibly();
        assertThat(process.waitFor())
                .as(Files.readString(folder.resolve("said.txt")))
                .isIn(128 + 9, ExitCode.OK);
        return process.exitValue() != ExitCode.OK
                && !Files.exists(killed.resolve("08-lora-r=2-learning-rate=1e-2-lora-alpha=8"));
    }

    @Test
    void methodsStandSideBySideInOneTableAndOneReport() throws Exception {
        Path output = folder.resolve("methods");
        String[] more = {"--grid=method=lora,ia3,full", "--grid=lora-r=2,4", "--lora-alpha=8", "--ask=Who is it?"};
        List<String> options = new ArrayList<>(List.of(command(output, more)));
        options.remove("--json");
        options.remove("--target-modules=q_proj");

        Program sweep = Program.run(options.toArray(String[]::new)).succeeds();

        assertThat(sweep.out().lines().limit(5).map(line -> line.replaceAll(" {2,}", "|")))
                .first()
                .asString()
                .isEqualTo("rank|method|lora-r|eval loss|loss|trained|planned|used|time");
        assertThat(sweep.out()).containsPattern("ia3 +- ").contains("The best is ", "report.html");
        try (Stream<Path> runs = Files.list(output)) {
            assertThat(runs.map(path -> path.getFileName().toString()))
                    .contains("01-method=lora-lora-r=2", "02-method=lora-lora-r=4", "03-method=ia3", "04-method=full");
        }
        JsonNode page = ReportTest.data(output.resolve("report.html"));
        assertThat(page.path("runs").findValuesAsText("method")).contains("lora", "ia3", "full");
        assertThat(page.path("command").asText()).contains("sweep --model", "method=lora,ia3,full");
        for (JsonNode run : page.path("runs")) {
            assertThat(run.path("trainable_params").asLong()).isPositive();
            assertThat(run.path("planned_memory_bytes").path("total").asLong()).isPositive();
            assertThat(run.path("peak_memory_bytes").asLong()).isPositive();
            assertThat(run.path("seconds").asDouble()).isPositive();
            assertThat(run.path("answers").get(0).path("after").isTextual()).isTrue();
            assertThat(run.path("log").findValues("eval_loss")).isNotEmpty();
        }
        assertThat(ReportTest.browse(folder, output.resolve("report.html")))
                .contains(
                        "4 runs compared",
                        "Ranked by eval loss",
                        "Evaluation loss</h2>",
                        "Answers</h2>",
                        "03-method=ia3");
    }

    @Test
    void aRandomSampleIsTheSameWithTheSameSeedAndRanksByAnyMetric() {
        String[] sample = {"--grid=learning-rate=1e-4..1e-2", "--random=2", "--random-seed=7", "--max-steps=1"};
        String[] small = Stream.of(command(folder.resolve("one"), sample))
                .filter(option -> !option.equals("--max-steps=4"))
                .toArray(String[]::new);
        JsonNode one = Program.run(Program.with(small, "--metric=tokens", "--greater-is-better"))
                .succeeds()
                .json();

        assertThat(one.path("metric").asText()).isEqualTo("tokens");
        assertThat(one.path("runs")).hasSize(2);
        for (JsonNode run : one.path("runs")) {
            assertThat(run.path("varied").path("learning-rate").asDouble()).isBetween(1e-4, 1e-2);
        }
        List<Double> tokens = new ArrayList<>();
        one.path("runs").forEach(run -> tokens.add(-run.path("tokens").asDouble()));
        assertThat(tokens).isSorted();
        Grid grid = new Grid(List.of("learning-rate=1e-4..1e-2"));
        assertThat(grid.drawn(2, 7)).isEqualTo(grid.drawn(2, 7)).isNotEqualTo(grid.drawn(2, 8));
    }

    @Test
    void whatIsWrongWithAnyRunIsSaidBeforeTheFirstBegins() {
        Path output = folder.resolve("none");
        Program.run(command(output, "--grid=lora-r=2,-1")).failsWith(ExitCode.FAILED, "-1");
        Program.run(command(output, "--grid=nonsense=1,2")).failsWith(ExitCode.FAILED, "--nonsense");
        Program.run(command(output, "--grid=output=a,b")).failsWith(ExitCode.FAILED, "--grid cannot vary --output");
        Program.run(command(output, "--grid=lora-r")).failsWith(ExitCode.FAILED, "an option with values is meant");
        Program.run(command(output, "--grid=learning-rate=1e-4..1e-2"))
                .failsWith(ExitCode.FAILED, "how many runs are to be drawn", "--random N");
        Program.run(command(output, "--grid=lora-r=1,2", "--push-to-hub=a/b"))
                .failsWith(ExitCode.FAILED, "--push-to-hub is not for a sweep");
        Program.run(command(output, "--grid=lora-r=1,2", "--dry-run"))
                .failsWith(ExitCode.FAILED, "--dry-run is not for a sweep");
        Program.run(command(output, "--grid=lora-r=1,2", "--resume", "auto"))
                .failsWith(ExitCode.FAILED, "--resume is not for a sweep, which goes on");
        Program.run(command(data, "--grid=lora-r=1,2"))
                .failsWith(ExitCode.FAILED, "--output " + data + " is a file; a folder is meant");
        assertThat(output).doesNotExist();
    }

    @Test
    void aMetricThatNoRunHasIsAnsweredWithThoseThatThereAre() {
        Path output = folder.resolve("unknown");
        String[] short1 = Stream.of(command(output, "--grid=lora-r=1,2", "--metric=bleu", "--max-steps=1"))
                .filter(option -> !option.equals("--max-steps=4"))
                .toArray(String[]::new);
        assertThat(Program.run(short1).err()).contains("--metric bleu is known of no run", "eval_loss", "seconds");
    }
}
