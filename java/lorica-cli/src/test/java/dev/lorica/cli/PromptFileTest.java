package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Answers to all questions of a file. */
class PromptFileTest {
    @TempDir
    Path folder;

    private Path prompts() throws IOException {
        List<String> lines = new ArrayList<>();
        for (int i = 0; i < 7; i++) {
            lines.add("{\"question\": \"Who is number " + i + "?\", \"answer\": \"not looked at\"}");
        }
        return Files.write(folder.resolve("prompts.jsonl"), lines);
    }

    private static Program answer(Path prompts, Path output, String... more) {
        return Program.run(command(prompts, output, more));
    }

    private static String[] command(Path prompts, Path output, String... more) {
        List<String> args = new ArrayList<>(List.of(
                "generate",
                "--model",
                Program.model(),
                "--prompts",
                prompts.toString(),
                "--output",
                output.toString(),
                "--batch-size",
                "2",
                "--n",
                "2"));
        args.addAll(List.of(more.length == 0 ? new String[] {"--max-tokens=6"} : more));
        return args.toArray(String[]::new);
    }

    @Test
    void everyQuestionIsAnsweredInItsOrder() throws IOException {
        Path output = folder.resolve("answers.jsonl");
        assertThat(answer(prompts(), output).succeeds().out()).contains("14 answers in " + output);
        List<String> lines = Files.readAllLines(output);
        assertThat(lines).hasSize(14);
        for (int i = 0; i < 14; i++) {
            JsonNode line = new ObjectMapper().readTree(lines.get(i));
            assertThat(line.get("number").asInt()).isEqualTo(i / 2);
            assertThat(line.get("sample").asInt()).isEqualTo(i % 2);
            assertThat(line.get("prompt").asText()).isEqualTo("Who is number " + i / 2 + "?");
            assertThat(line.get("text").asText()).isNotEmpty();
            assertThat(line.get("generated_tokens").asInt()).isBetween(1, 6);
        }
    }

    @Test
    void aRunThatWasKilledEndsInTheSameFile() throws IOException {
        Path whole = folder.resolve("whole.jsonl");
        answer(prompts(), whole).succeeds();
        byte[] bytes = Files.readAllBytes(whole);
        for (int kept : new int[] {0, bytes.length / 2, bytes.length * 4 / 5, bytes.length}) {
            Path cut = folder.resolve("cut" + kept + ".jsonl");
            Files.write(cut, Arrays.copyOf(bytes, kept));
            Program again = answer(prompts(), cut).succeeds();
            assertThat(Files.readAllBytes(cut)).as("%d bytes were there", kept).isEqualTo(bytes);
            if (kept > bytes.length * 2 / 3) {
                assertThat(again.err()).contains("goes on after");
            }
        }
    }

    @Test
    void killedWhileItAnswersAndStartedAgainItEndsInTheSameFile() throws Exception {
        Path many = folder.resolve("many.jsonl");
        Files.write(
                many,
                IntStream.range(0, 30)
                        .mapToObj(i -> "{\"question\": \"Who is number " + i + "?\"}")
                        .toList());
        String[] longer = {"--max-tokens=60"};
        Path whole = folder.resolve("whole.jsonl");
        answer(many, whole, longer).succeeds();
        Path killed = folder.resolve("killed.jsonl");
        long size = 0;
        for (int kill = 0; kill < 2; kill++) {
            List<String> command = new ArrayList<>(List.of(
                    Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                    "-XX:+UseSerialGC",
                    "-XX:TieredStopAtLevel=1",
                    "-cp",
                    System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")),
                    LoricaCli.class.getName()));
            command.addAll(List.of(command(many, killed, longer)));
            Process process = new ProcessBuilder(command)
                    .redirectErrorStream(true)
                    .redirectOutput(folder.resolve("said.txt").toFile())
                    .start();
            while (process.isAlive() && (!Files.exists(killed) || Files.size(killed) <= size)) {
                Thread.sleep(2);
            }
            Thread.sleep(new Random().nextInt(50));
            process.destroyForcibly();
            assertThat(process.waitFor()).as("killed").isEqualTo(128 + 9);
            size = Files.size(killed);
            assertThat(size).isBetween(1L, Files.size(whole) - 1);
        }

        Program again = answer(many, killed, longer).succeeds();

        assertThat(again.err()).contains("goes on after");
        assertThat(killed).hasSameBinaryContentAs(whole);
    }

    @Test
    void whatDoesNotGoTogetherIsSaid() throws IOException {
        Path output = folder.resolve("answers.jsonl");
        Files.writeString(output, "{\"something\": \"else\"}\n");
        Program refused = answer(prompts(), output);
        assertThat(refused.exitCode()).isEqualTo(ExitCode.FAILED);
        assertThat(refused.err()).contains("error: --output " + output, "does not hold answers to");
        assertThat(output).hasContent("{\"something\": \"else\"}\n");
        Path wrong = Files.writeString(folder.resolve("wrong.jsonl"), "{\"colour\": \"red\"}\n");
        answer(wrong, folder.resolve("other.jsonl")).failsWith(ExitCode.FAILED, "nothing is asked");
        Program.run(
                        "generate",
                        "--model",
                        Program.model(),
                        "--prompts",
                        prompts().toString())
                .failsWith(ExitCode.USAGE, "--prompts and --output belong together");
        answer(prompts(), prompts()).failsWith(ExitCode.FAILED, "--output");
    }
}
