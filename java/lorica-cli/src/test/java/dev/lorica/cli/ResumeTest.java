package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.adapter.Adapter;
import dev.lorica.log.JsonlLog;
import dev.lorica.train.Checkpoint;
import java.io.BufferedReader;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Programs that are ended from outside, and go on. */
class ResumeTest {
    /** How often the program is killed; more take longer: {@code -DargLine=-Dlorica.kills=50}. */
    private static final int KILLS = Integer.getInteger("lorica.kills", 4);

    private static final int STEPS = 24;

    @TempDir
    static Path shared;

    @TempDir
    Path folder;

    private static Path data;
    private static Path held;
    /** Runs that nothing disturbed, by their options; several tests compare with the same. */
    private static final Map<List<String>, Path> THROUGH = new HashMap<>();

    @BeforeAll
    static void writeData() throws IOException {
        data = examples(shared.resolve("data.jsonl"), 0, 9);
        held = examples(shared.resolve("held.jsonl"), 9, 12);
    }

    private static Path through(String... more) {
        return THROUGH.computeIfAbsent(List.of(more), key -> {
            Path output = shared.resolve("through-" + THROUGH.size());
            Program.run(arguments(output, more)).succeeds();
            return output;
        });
    }

    @Test
    void killedAtAnyMomentAndResumedItEndsInTheVeryBytes() throws Exception {
        Path through = through();
        long seed = System.nanoTime();
        Random random = new Random(seed);
        int kills = 0;
        for (int chain = 0; kills < KILLS; chain++) {
            Path output = folder.resolve("chain-" + chain);
            while (true) {
                Process process = start(output, "--resume", "auto");
                if (kills < KILLS && killSomewhere(process, random)) {
                    kills++;
                    continue;
                }
                String said = rest(process);
                assertThat(process.waitFor()).as("seed " + seed + ": " + said).isZero();
                break;
            }
            assertThat(output.resolve(Adapter.FILE_NAME))
                    .as("seed " + seed + ", chain " + chain)
                    .hasSameBinaryContentAs(through.resolve(Adapter.FILE_NAME));
            assertThat(log(output)).as("seed " + seed).isEqualTo(log(through));
            try (var files = Files.list(output)) {
                assertThat(files.map(Path::toString)).noneMatch(name -> name.endsWith(".tmp"));
            }
        }
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "dpo",
                "dpo --precompute-ref-log-probs",
                "orpo",
                "simpo",
                "cpo",
                "kto",
                "reward",
                "grpo --num-generations=2 --max-completion-length=4 --beta=0.1 --num-iterations=2",
                "distill --loss-top-k=8"
            })
    void killedWhateverItMakesSmallItEndsInTheVeryBytes(String objective) throws Exception {
        List<String> options = new ArrayList<>(List.of("--objective"));
        options.addAll(List.of(objective.split(" ")));
        String kind = options.get(1);
        options.addAll(List.of("--data", preferences(kind, 0, 9).toString()));
        options.addAll(List.of("--eval-data", preferences(kind, 9, 12).toString(), "--max-steps", "10"));
        if (kind.equals("grpo")) {
            options.addAll(List.of("--reward-command", "while read -r line; do echo \"${#line}\"; done"));
        }
        if (kind.equals("distill")) {
            // A teacher that is another than its student.
            options.addAll(List.of("--teacher-model=" + Program.model(), "--teacher-adapter=" + through()));
        }
        Path whole = folder.resolve("whole");
        Program.run(arguments(whole, options.toArray(String[]::new))).succeeds();
        Path parts = folder.resolve("parts");
        Process begins = process(held("saved ", arguments(parts, options.toArray(String[]::new))));
        awaitLine(begins, "saved ");
        begins.destroyForcibly().waitFor();
        assertThat(parts.resolve(Adapter.FILE_NAME)).doesNotExist();

        options.add("--resume");
        Program.run(arguments(parts, options.toArray(String[]::new))).succeeds();
        assertThat(parts.resolve(Adapter.FILE_NAME)).hasSameBinaryContentAs(whole.resolve(Adapter.FILE_NAME));
        assertThat(log(parts)).isEqualTo(log(whole));
    }

    /** Records that an objective learns from. */
    private Path preferences(String objective, int from, int to) throws IOException {
        String form =
                switch (objective) {
                    case "kto" -> "{'prompt': 'What is number %1$d?', 'completion': 'It is %1$d.', 'label': %2$s}";
                    case "grpo", "distill" -> "{'prompt': 'What is number %1$d?', 'completion': 'It is %1$d.'}";
                    default -> "{'prompt': 'What is number %1$d?', 'chosen': 'It is %1$d.', 'rejected': 'It is %2$s.'}";
                };
        return Files.writeString(
                folder.resolve("data-" + from + ".jsonl"),
                IntStream.range(from, to)
                        .mapToObj(i -> String.format(form.replace('\'', '"'), i, i % 2 == 0) + "\n")
                        .collect(Collectors.joining()));
    }

    /** Waits for some lines of the log, then a moment; false when the program was through before. */
    private static boolean killSomewhere(Process process, Random random) throws Exception {
        int lines = random.nextInt(8);
        BufferedReader err = reader(process);
        for (int i = 0; i < lines; ) {
            String line = err.readLine();
            if (line == null) {
                break;
            }
            i += line.startsWith("step ") || line.startsWith("saved ") || line.startsWith("goes on ") ? 1 : 0;
        }
        if (process.waitFor(lines == 0 ? random.nextInt(1500) : random.nextInt(40), TimeUnit.MILLISECONDS)) {
            return false;
        }
        process.destroyForcibly().waitFor();
        return true;
    }

    @ParameterizedTest
    @ValueSource(strings = {"INT", "TERM"})
    void interruptedItSavesEverythingAndSaysHowToGoOn(String signal) throws Exception {
        int steps = 5 * STEPS;
        String[] untilInterrupted = {
            "--max-steps", Integer.toString(steps), "--eval-steps", Integer.toString(STEPS), "--save-strategy", "no"
        };
        Path through = through(untilInterrupted);
        Path output = folder.resolve("interrupted");
        // What a shell starts in the background ignores SIGINT, and so does all that it starts, these tests among them.
        List<String> command = new ArrayList<>(List.of("env", "--default-signal=INT"));
        String third = " 3/" + steps;
        command.addAll(held(third, arguments(output, untilInterrupted)));
        Process process = process(command);
        awaitLine(process, third);
        new ProcessBuilder("kill", "-" + signal, Long.toString(process.pid()))
                .start()
                .waitFor();
        Thread.sleep(1000); // another thread than the one that trains hears of it
        process.getOutputStream().close();
        rest(process);
        String out = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertThat(process.waitFor()).isEqualTo(ExitCode.INTERRUPTED);
        assertThat(out)
                .contains(
                        "Stopped after step",
                        "lorica train --config " + Shell.quote(output + "/train_config.yaml") + " --resume");
        assertThat(Checkpoint.list(output)).hasSize(1);

        Program resumed = Program.run(
                        "train", "--config", output.resolve("train_config.yaml").toString(), "--resume", "--json")
                .succeeds();

        assertThat(resumed.json().get("resumed_from_step").asInt()).isBetween(3, steps - 1);
        assertThat(resumed.json().get("steps").asInt()).isEqualTo(steps);
        assertThat(output.resolve(Adapter.FILE_NAME)).hasSameBinaryContentAs(through.resolve(Adapter.FILE_NAME));
        assertThat(log(output)).isEqualTo(log(through));
    }

    @Test
    void aFullDiskCostsTheNewCheckpointNotTheOldOne() throws Exception {
        Path output = folder.resolve("full");
        Path through = through();
        Process begins = process(held("saved ", arguments(output, "--save-steps", "4")));
        awaitLine(begins, "saved ");
        begins.destroyForcibly().waitFor();
        int before =
                Checkpoint.latest(output, (path, reason) -> {}).orElseThrow().step();

        // No file may be larger than 96 KiB: enough for an adapter, too little for the optimizer's state.
        List<String> command = new ArrayList<>(List.of("bash", "-c", "ulimit -f 96; exec \"$@\"", "bash"));
        command.addAll(java(arguments(output, "--resume", "auto")));
        Process full = process(command);
        String said = rest(full);

        assertThat(full.waitFor()).as(said).isZero();
        assertThat(said)
                .contains("goes on from " + Checkpoint.list(output).get(0))
                .contains("warning: no checkpoint of step " + STEPS + ": ", "training goes on");
        assertThat(Checkpoint.list(output)).hasSize(1);
        assertThat(Checkpoint.open(Checkpoint.list(output).get(0)).step()).isEqualTo(before);
        assertThat(output.resolve(Adapter.FILE_NAME)).hasSameBinaryContentAs(through.resolve(Adapter.FILE_NAME));
    }

    @Test
    void whatIsInTheFolderAlreadyIsNotMixedWithANewRun() throws IOException {
        Path output = folder.resolve("twice");
        Program.run(arguments(output)).succeeds();

        Program.run(arguments(output)).failsWith(ExitCode.FAILED, "holds a finished adapter", "--resume auto");
        Program.run(arguments(output, "--resume", "--seed", "3"))
                .failsWith(ExitCode.FAILED, "cannot go on", "seed was 42 and is 3");
        Program.run(arguments(output, "--overwrite-output-dir", "--max-steps", "2", "--save-strategy", "no"))
                .succeeds();
        assertThat(Checkpoint.list(output)).isEmpty();
        assertThat(log(output)).hasSize(3);

        Program anew = Program.run(arguments(folder.resolve("new"), "--resume")).succeeds();
        assertThat(anew.err()).contains("there is no checkpoint in", "the run begins anew");
    }

    @Test
    void aDamagedCheckpointIsPassedOver() throws IOException {
        Path output = folder.resolve("damaged");
        Program.run(arguments(output, "--save-total-limit", "2")).succeeds();
        Path newest = Checkpoint.list(output).get(1);
        Files.write(newest.resolve("training_state.bin"), new byte[] {1, 2, 3});

        Program resumed = Program.run(arguments(output, "--resume", "--json")).succeeds();

        assertThat(resumed.err()).contains("passed over: " + newest + " is damaged: training_state.bin");
        assertThat(resumed.json().get("resumed_from_step").asInt()).isEqualTo(STEPS - 1);
    }

    private static Path examples(Path file, int from, int to) throws IOException {
        return Files.writeString(
                file,
                IntStream.range(from, to)
                        .mapToObj(i ->
                                "{\"question\": \"What is number " + i + "?\", \"answer\": \"It is " + i + ".\"}\n")
                        .collect(Collectors.joining()));
    }

    /** {@code more} replaces what is said here. */
    private static String[] arguments(Path output, String... more) {
        List<String> arguments = new ArrayList<>(List.of("train", "--model=" + Program.model(), "--data=" + data));
        arguments.addAll(List.of("--eval-data=" + held, "--output=" + output, "--lora-r=2", "--target-modules=q_proj"));
        arguments.addAll(List.of("--lora-dropout=0.1", "--learning-rate=5e-3", "--lr-scheduler-type=cosine"));
        arguments.addAll(List.of("--batch-size=2", "--gradient-accumulation-steps=2", "--max-steps=" + STEPS));
        arguments.addAll(List.of("--save-steps=1", "--logging-steps=1", "--eval-steps=5", "--threads=1"));
        for (String option : more) {
            arguments.removeIf(given -> given.startsWith(option + "="));
        }
        if (Arrays.asList(more).contains("--save-strategy")) {
            arguments.remove("--save-steps=1");
        }
        arguments.addAll(List.of(more));
        return arguments.toArray(String[]::new);
    }

    private static Process start(Path output, String... more) throws IOException {
        return process(java(arguments(output, more)));
    }

    private static List<String> java(String... arguments) {
        return command(LoricaCli.class, arguments);
    }

    /** Stops behind a line with this text. */
    private static List<String> held(String text, String... arguments) {
        return command(
                HeldProgram.class,
                Stream.concat(Stream.of(text), Stream.of(arguments)).toArray(String[]::new));
    }

    private static void awaitLine(Process process, String text) throws IOException {
        List<String> said = new ArrayList<>();
        BufferedReader err = reader(process);
        for (String line = err.readLine(); line != null; line = err.readLine()) {
            said.add(line);
            if (line.contains(text)) {
                return;
            }
        }
        throw new AssertionError("\"" + text + "\" was not said, but: " + said);
    }

    private static List<String> command(Class<?> program, String... arguments) {
        List<String> command = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")),
                program.getName()));
        command.addAll(List.of(arguments));
        return command;
    }

    private static Process process(List<String> command) throws IOException {
        ProcessBuilder builder = new ProcessBuilder(command);
        return builder.start();
    }

    private static BufferedReader reader(Process process) {
        return process.errorReader(StandardCharsets.UTF_8);
    }

    private static String rest(Process process) throws IOException {
        return reader(process).lines().collect(Collectors.joining("\n"));
    }

    /** The log without what depends on the clock. */
    private static List<JsonNode> log(Path output) throws IOException {
        List<JsonNode> records = new ArrayList<>();
        for (String line : Files.readAllLines(output.resolve(JsonlLog.FILE_NAME))) {
            ObjectNode record = (ObjectNode) new ObjectMapper().readTree(line);
            records.add(record.without(List.of("seconds", "tokens_per_second", "utilization", "eval_seconds")));
        }
        return records;
    }
}
