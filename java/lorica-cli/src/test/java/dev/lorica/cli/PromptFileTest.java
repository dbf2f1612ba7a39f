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
                "2",
                "--max-tokens",
                "6"));
        args.addAll(List.of(more));
        return Program.run(args.toArray(String[]::new));
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
