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
        int tries = 0;
        while (!isKilledTwice(many, killed, Files.size(whole), longer)) {
            assertThat(++tries).as("runs that were through before").isLessThan(10);
            Files.delete(killed);
        }

        Program again = answer(many, killed, longer).succeeds();

        assertThat(again.err()).contains("goes on after");
        assertThat(killed).hasSameBinaryContentAs(whole);
    }

    /** False where this process was kept from its work for so long that all was answered. */
    private boolean isKilledTwice(Path many, Path killed, long whole, String... longer) throws Exception {
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
            assertThat(process.waitFor())
                    .as(Files.readString(folder.resolve("said.txt")))
                    .isIn(128 + 9, ExitCode.OK);
            size = Files.size(killed);
            assertThat(size).isPositive();
            if (process.exitValue() == ExitCode.OK || size >= whole) {
                return false;
            }
        }
        return true;
    }

    /** They would be taken for those of the model that is asked now. */
    @Test
    void answersThatWereMadeOtherwiseAreNotTakenForItsOwn() throws IOException {
        Path output = folder.resolve("answers.jsonl");
        answer(prompts(), output).succeeds();
        byte[] bytes = Files.readAllBytes(output);
        Path data = Files.writeString(folder.resolve("data.jsonl"), "{\"question\": \"a\", \"answer\": \"b\"}\n");
        Path adapter = Program.adapter(folder.resolve("adapter"), data);
        String made = "holds answers that another model, adapter or template gave, or other settings";
        refuses(made, answer(prompts(), output, "--max-tokens=6", "--adapter=" + adapter));
        refuses(made, answer(prompts(), output, "--max-tokens=7"));
        refuses(made, answer(prompts(), output, "--max-tokens=6", "--temperature=0"));
        refuses(made, answer(prompts(), output, "--max-tokens=6", "--chat-template=chatml"));
        assertThat(output).hasBinaryContent(bytes);

        Path half = folder.resolve("half.jsonl");
        answer(prompts(), half, "--max-tokens=6", "--adapter=" + adapter + ":0.5")
                .succeeds();
        refuses(made, answer(prompts(), half, "--max-tokens=6", "--adapter=" + adapter));
        answer(prompts(), half, "--max-tokens=6", "--adapter=" + adapter + ":0.5")
                .succeeds();
    }

    private static void refuses(String why, Program program) {
        assertThat(program.exitCode()).isEqualTo(ExitCode.FAILED);
        assertThat(program.err()).contains(why);
    }

    @Test
    void whereNoFileCanBeIsSaidBeforeAModelIsLoaded() throws IOException {
        answer(prompts(), folder).failsWith(ExitCode.FAILED, folder + " is a folder; a file is meant");
        Path nowhere = folder.resolve("none/answers.jsonl");
        answer(prompts(), nowhere).failsWith(ExitCode.FAILED, nowhere + " cannot be written", "none is no folder");
        Program.run("generate", "-m=no.gguf", "-i=Who?", "--batch-size=3")
                .failsWith(ExitCode.FAILED, "--batch-size is for --prompts");
        Program many = Program.run(
                "generate",
                "-m=" + Program.model(),
                "--prompts=" + prompts(),
                "--output=" + folder.resolve("many.jsonl"),
                "--n=2000000000");
        assertThat(many.exitCode()).isEqualTo(ExitCode.FAILED);
        assertThat(many.err()).contains("error: --num-return-sequences is 2000000000, of 7 questions");
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
