package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class PlanCommandTest {
    @Test
    void addsUpAndNamesTheLargestBatchThatFits() {
        JsonNode plan = plan("64MiB", "1");

        JsonNode kept = plan.get("without_checkpointing");
        long parts = 0;
        for (String part : new String[] {"weights", "adapter", "gradients", "optimizer", "activations", "workspace"}) {
            assertThat(kept.get(part).asLong()).as(part).isPositive();
            parts += kept.get(part).asLong();
        }
        assertThat(kept.get("total").asLong()).isEqualTo(parts);
        int keptFits = kept.get("largest_batch_size").asInt();
        int recomputedFits =
                plan.get("with_checkpointing").get("largest_batch_size").asInt();
        assertThat(keptFits).isPositive();
        assertThat(recomputedFits).isGreaterThan(keptFits);

        assertThat(fits("64MiB", keptFits)).isTrue();
        assertThat(fits("64MiB", keptFits + 1)).isFalse();
        JsonNode chosen = plan("64MiB", Integer.toString(keptFits + 1)).get("auto");
        assertThat(chosen.get("fits").asBoolean()).isTrue();
        assertThat(chosen.get("recomputed_layers").asInt()).isPositive();
        assertThat(plan("1MiB", "1")
                        .get("with_checkpointing")
                        .get("largest_batch_size")
                        .asInt())
                .isZero();
    }

    @Test
    void isWhatTrainingPlans(@TempDir Path folder) throws IOException {
        Path data = Files.writeString(
                folder.resolve("data.jsonl"), "{\"text\": \"" + "It is a truth. ".repeat(40) + "\"}\n");
        JsonNode trained = Program.run(
                        "train",
                        "-m",
                        Program.model(),
                        "-d",
                        data.toString(),
                        "-o",
                        folder.resolve("a").toString(),
                        "--max-length",
                        "32",
                        "--overflow",
                        "truncate",
                        "--batch-size",
                        "1",
                        "--max-steps",
                        "1",
                        "--gradient-checkpointing",
                        "off",
                        "--json")
                .succeeds()
                .json();
        JsonNode planned = Program.run(
                        "plan", "-m", Program.model(), "--max-length", "32", "--batch-size", "1", "--json")
                .succeeds()
                .json();

        assertThat(planned.get("without_checkpointing").get("total"))
                .isEqualTo(trained.get("planned_memory_bytes").get("total"));
    }

    @Test
    void saysItInWords() {
        assertThat(Program.run("plan", "-m", Program.model(), "--available", "1MiB")
                        .succeeds()
                        .out())
                .containsPattern("weights +4\\.2 MiB +4\\.2 MiB")
                .containsPattern("of 1.0 MiB +does not fit +does not fit")
                .containsPattern("largest batch +none fits +none fits")
                .doesNotContain("again and takes");
        assertThat(Program.run("plan", "-m", Program.model(), "--available", "150MiB")
                        .succeeds()
                        .out())
                .containsPattern("computes [1-7] of 8 layers again and takes 1\\d\\d\\.\\d MiB");
        Program.run("plan", "-m", Program.model(), "--available", "much")
                .failsWith(ExitCode.FAILED, "--available", "8GiB");
        Program.run("plan", "-m", Program.model(), "--batch-size", "0").failsWith(ExitCode.FAILED, "batch size is 0");
    }

    private static boolean fits(String available, int batchSize) {
        return plan(available, Integer.toString(batchSize))
                .get("without_checkpointing")
                .get("fits")
                .asBoolean();
    }

    private static JsonNode plan(String available, String batchSize) {
        return Program.run(
                        "plan",
                        "-m",
                        Program.model(),
                        "--available",
                        available,
                        "--max-length",
                        "64",
                        "--batch-size",
                        batchSize,
                        "--json")
                .succeeds()
                .json();
    }
}
