package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What {@code train} says of a run without it, and what it writes of answers while it goes on. */
class DryRunTest {
    private static final ObjectMapper JSON = new ObjectMapper();

    @TempDir
    private Path folder;

    private Path data;
    private Path output;

    @BeforeEach
    void files() throws IOException {
        data = Files.writeString(
                folder.resolve("q.json"),
                "[{\"question\": \"Who is Mr. Collins?\", \"answer\": \"Mr. Collins is a clergyman.\"},"
                        + "{\"question\": \"Who is Mr. Bennet?\", \"answer\": \"Mr. Bennet has five daughters, and a library.\"}]");
        output = folder.resolve("out");
    }

    private String[] command(String... more) {
        String[] command = {
            "train",
            "-m",
            Program.model(),
            "-d",
            data.toString(),
            "-o",
            output.toString(),
            "--lora-r=2",
            "--target-modules=q_proj",
            "--max-steps=4",
            "--logging-steps=1",
            "--eval-data=" + data,
            "--eval-steps=2"
        };
        return Program.with(command, more);
    }

    @Test
    void aDryRunSaysWhatWouldBeAndWritesNothing() {
        JsonNode said = Program.run(command("--dry-run", "--json", "--show-examples=1"))
                .succeeds()
                .json();

        assertThat(output).doesNotExist();
        assertThat(said.path("steps").asInt()).isEqualTo(4);
        assertThat(said.path("fits").asBoolean()).isTrue();
        assertThat(said.path("words")).anyMatch(words -> words.asText().contains("4 steps"));
        JsonNode example = said.path("examples").get(0);
        assertThat(said.path("examples")).hasSize(1);
        StringBuilder learned = new StringBuilder();
        StringBuilder read = new StringBuilder();
        example.path("tokens").forEach(token -> (token.path("learned").asBoolean() ? learned : read)
                .append(token.path("text").asText()));
        assertThat(read.toString()).contains("### Instruction:\nWho is Mr. Collins?", "### Response:");
        assertThat(learned.toString()).startsWith("Mr. Collins is a clergyman.").doesNotContain("Instruction");
        assertThat(example.path("tokens")).hasSize(example.path("length").asInt());
    }

    @Test
    void answersAreThereOnceForEachEvaluationAlsoWhenTheRunGoesOnFromACheckpoint() throws IOException {
        String[] run = command("--ask=Who is Mr. Collins?", "--ask-at-evals", "--save-steps=2");
        Program.run(run).succeeds();
        List<String> whole = Files.readAllLines(output.resolve("train_answers.jsonl"));
        assertThat(steps(whole)).containsExactly(0, 2, 4);

        try (Stream<Path> all = Files.walk(output.resolve("checkpoint-4"))) {
            all.sorted(Comparator.reverseOrder()).forEach(file -> file.toFile().delete());
        }
        Program.run(Program.with(run, "--resume")).succeeds();

        assertThat(Files.readAllLines(output.resolve("train_answers.jsonl"))).isEqualTo(whole);
    }

    @Test
    void answersNeedQuestions() {
        Program.run(command("--ask-at-evals")).failsWith(ExitCode.FAILED, "--ask-at-evals needs questions");
    }

    private static List<Integer> steps(List<String> lines) throws IOException {
        List<Integer> steps = new ArrayList<>();
        for (String line : lines) {
            steps.add(JSON.readTree(line).path("step").asInt());
        }
        return steps;
    }
}
