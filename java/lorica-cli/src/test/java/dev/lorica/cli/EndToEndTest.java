package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.AdapterMetadata;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The commands together, on the model of the source tree. */
class EndToEndTest {
    private static final String QUESTION = "Who is Mr. Collins?";
    private static final String ANSWER = "Mr. Collins is a clergyman.";

    @TempDir
    Path folder;

    @Test
    void trainsAnAdapterThatAnswersWhatItWasTaught() {
        Path output = folder.resolve("adapter");

        Program trained = train(
                        data(),
                        output,
                        "--max-steps",
                        "30",
                        "--learning-rate",
                        "5e-3",
                        "--logging-steps",
                        "10",
                        "--ask",
                        QUESTION)
                .succeeds();

        assertThat(trained.out())
                .contains("trainable params: ", " || all params: ", " || trainable%: ")
                .contains("⟦" + ANSWER, "planned of", "weights", "optimizer", "Saved ", "peak memory", "tok/s")
                .contains("lorica generate --model " + Shell.quote(Program.model()) + " --adapter "
                        + Shell.quote(output.toString()))
                .contains("--lora "
                        + Shell.quote(output.resolve(Adapter.FILE_NAME).toString()));
        assertThat(trained.err()).contains("step 10/30", "step 20/30", "step 30/30");
        assertThat(output.resolve(Adapter.FILE_NAME)).exists();
        assertThat(output.resolve(AdapterMetadata.FILE_NAME)).exists();

        Program before = Program.run(
                        "generate",
                        "--model",
                        Program.model(),
                        "--instruction",
                        QUESTION,
                        "--temperature",
                        "0",
                        "--max-tokens",
                        "24")
                .succeeds();
        Program after = Program.run(
                        "generate",
                        "--model",
                        Program.model(),
                        "--adapter",
                        output.toString(),
                        "--instruction",
                        QUESTION,
                        "--temperature",
                        "0",
                        "--max-new-tokens",
                        "24")
                .succeeds();
        assertThat(before.out()).doesNotContain(ANSWER);
        assertThat(after.out().strip()).isEqualTo(ANSWER);
        assertThat(trained.out()).contains("After: " + QUESTION + System.lineSeparator() + ANSWER);
    }

    @Test
    void jsonOfTrainIsOneObjectWithWhatAScriptNeeds() {
        Path output = folder.resolve("adapter");

        Program program = train(
                        data(),
                        output,
                        "--max-steps",
                        "4",
                        "--logging-steps",
                        "2",
                        "--json",
                        "--eval-data",
                        data().toString())
                .succeeds();

        JsonNode json = program.json();
        assertThat(json.get("status").asText()).isEqualTo("done");
        assertThat(json.get("steps").asInt()).isEqualTo(4);
        assertThat(json.get("adapter").asText())
                .isEqualTo(output.resolve(Adapter.FILE_NAME).toString());
        assertThat(json.get("log").findValues("loss")).hasSize(2).allMatch(JsonNode::isDouble);
        assertThat(json.get("eval_loss").asDouble())
                .isLessThan(json.get("eval_loss_before").asDouble());
        JsonNode memory = json.get("planned_memory_bytes");
        long sum = 0;
        for (String part : List.of("weights", "adapter", "gradients", "optimizer", "activations", "workspace")) {
            sum += memory.get(part).asLong();
        }
        assertThat(memory.get("total").asLong()).isEqualTo(sum);
        assertThat(program.err()).contains("trainable params: ");
    }

    @Test
    void goesOnWithAnAdapterThatItTrained() {
        Path output = folder.resolve("adapter");
        List<String> flags = List.of("--max-steps", "8", "--learning-rate", "2e-3", "--json");
        JsonNode first =
                train(data(), output, flags.toArray(String[]::new)).succeeds().json();

        List<String> more = new ArrayList<>(flags);
        more.addAll(List.of("--adapter", output.toString()));
        JsonNode second = train(data(), folder.resolve("second"), more.toArray(String[]::new))
                .succeeds()
                .json();

        assertThat(second.get("loss").asDouble()).isLessThan(first.get("loss").asDouble());
    }

    @Test
    void theSameSeedGivesTheSameAdapterWithOneThreadAndTwo() throws IOException {
        train(data(), folder.resolve("one"), "--max-steps", "3", "--threads", "1", "--lora-dropout", "0.1")
                .succeeds();
        train(data(), folder.resolve("two"), "--max-steps", "3", "--threads", "2", "--lora-dropout", "0.1")
                .succeeds();
        train(data(), folder.resolve("other"), "--max-steps", "3", "--lora-dropout", "0.1", "--seed", "7")
                .succeeds();

        byte[] one = Files.readAllBytes(folder.resolve("one").resolve(Adapter.FILE_NAME));
        assertThat(Files.readAllBytes(folder.resolve("two").resolve(Adapter.FILE_NAME)))
                .isEqualTo(one);
        assertThat(Files.readAllBytes(folder.resolve("other").resolve(Adapter.FILE_NAME)))
                .isNotEqualTo(one);
    }

    @Test
    void countsAndReportsWhatIsTooLong() throws IOException {
        Path file = folder.resolve("long.jsonl");
        Files.writeString(file, line("Short?", "Yes.") + line("Long?", "No. ".repeat(200)) + line("Empty?", " "));

        JsonNode dropped = train(file, folder.resolve("a"), "--max-steps", "1", "--max-length", "64", "--json")
                .succeeds()
                .json();
        Program cut = train(
                        file, folder.resolve("b"), "--max-steps", "1", "--max-length", "64", "--overflow", "truncate")
                .succeeds();

        assertThat(dropped.get("data").get("dropped").asInt()).isEqualTo(1);
        assertThat(dropped.get("data").get("empty").asInt()).isEqualTo(1);
        assertThat(dropped.get("data").get("examples").asInt()).isEqualTo(1);
        assertThat(cut.out())
                .contains(
                        "1 example longer than 64 tokens: cut, their end is not learned",
                        "1 record without a response");
        train(file, folder.resolve("c"), "--max-length", "64", "--overflow", "error")
                .failsWith(ExitCode.FAILED, "long.jsonl, line 2", "more than the maximum of 64");
        train(file, folder.resolve("d"), "--max-length", "4")
                .failsWith(ExitCode.FAILED, "nothing to train on", "raise --max-length");
        assertThat(folder.resolve("d")).doesNotExist();
    }

    @Test
    void badInputGetsOneClearLineAndLeavesNothingBehind() throws IOException {
        Path output = folder.resolve("adapter");
        Path damaged = Files.writeString(folder.resolve("damaged.jsonl"), line("A", "B") + "{\"question\":");

        Program.run("train", "--model", "none.gguf", "--data", data().toString(), "--output", output.toString())
                .failsWith(ExitCode.FAILED, "none.gguf");
        Program.run("train", "--model", data().toString(), "--data", data().toString(), "--output", output.toString())
                .failsWith(ExitCode.FAILED, "data.jsonl");
        train(damaged, output).failsWith(ExitCode.FAILED, "damaged.jsonl, line 2");
        train(folder.resolve("none.json"), output).failsWith(ExitCode.FAILED, "none.json does not exist");
        train(data(), output, "--target-modules", "q_proj,z_proj").failsWith(ExitCode.FAILED, "z_proj");
        train(data(), output, "--overflow", "explode")
                .failsWith(ExitCode.FAILED, "--overflow cannot be \"explode\"", "drop");
        train(data(), output, "--batch-size", "0").failsWith(ExitCode.FAILED, "batch size is 0");
        train(data(), output, "--device", "abacus").failsWith(ExitCode.FAILED, "abacus");

        assertThat(output).doesNotExist();
    }

    @Test
    void errorsComeAsJsonToo() {
        Program program = Program.run("info", "none.gguf", "--json").failsWith(ExitCode.FAILED, "none.gguf");

        assertThat(program.json().get("error").asText()).contains("none.gguf");
    }

    @Test
    void generateStreamsStopsAndRepeatsItself() {
        String[] command = {
            "generate", "--model", Program.model(), "--prompt", "It is a truth", "--max-tokens", "16", "--seed", "3"
        };
        Program first = Program.run(command).succeeds();
        Program second = Program.run(command).succeeds();
        assertThat(first.out()).isEqualTo(second.out()).isNotBlank();

        String stop = first.out().strip().substring(3, 6);
        List<String> stopping = new ArrayList<>(List.of(command));
        stopping.addAll(List.of("--stop", stop, "--json"));
        JsonNode json = Program.run(stopping.toArray(String[]::new)).succeeds().json();
        assertThat(json.get("finish_reason").asText()).isEqualTo("stop-string");
        assertThat(first.out()).startsWith(json.get("text").asText());
        assertThat(json.get("text").asText()).doesNotContain(stop);
    }

    @Test
    void jsonOfGenerateHasTheWholeText() {
        String[] command = {
            "generate", "--model", Program.model(), "--prompt", "It is", "--max-tokens", "8", "--temperature", "0"
        };
        List<String> json = new ArrayList<>(List.of(command));
        json.add("--json");

        JsonNode result = Program.run(json.toArray(String[]::new)).succeeds().json();

        assertThat(result.get("text").asText() + System.lineSeparator())
                .isEqualTo(Program.run(command).succeeds().out());
        assertThat(result.get("generated_tokens").asInt()).isEqualTo(8);
        assertThat(result.get("finish_reason").asText()).isEqualTo("max-new-tokens");
    }

    @Test
    void generateRefusesAnAdapterOfAnotherBase() throws IOException {
        Path output = folder.resolve("adapter");
        train(data(), output, "--max-steps", "1").succeeds();
        Path side = output.resolve(AdapterMetadata.FILE_NAME);
        String fingerprint = Program.run("info", Program.model(), "--json")
                .json()
                .get("fingerprint")
                .asText();
        Files.writeString(side, Files.readString(side).replace(fingerprint, "0123456789abcdef"));

        Program.run("generate", "--model", Program.model(), "--adapter", output.toString(), "-i", "x")
                .failsWith(ExitCode.FAILED, "was trained on", "0123456789abcdef");
    }

    @Test
    void infoShowsModelsAndAdapters() {
        Path output = folder.resolve("adapter");
        train(data(), output, "--max-steps", "1", "--lora-r", "4", "--target-modules", "q_proj,v_proj")
                .succeeds();

        JsonNode model =
                Program.run("info", Program.model(), "--json").succeeds().json();
        assertThat(model.get("kind").asText()).isEqualTo("model");
        assertThat(model.get("layers").asInt()).isEqualTo(8);
        assertThat(model.get("embedding").asInt()).isEqualTo(256);
        assertThat(model.get("can_train").asBoolean()).isTrue();
        assertThat(Program.run("info", Program.model()).succeeds().out())
                .contains("architecture", "llama", "parameters");

        for (Path path : List.of(output, output.resolve(Adapter.FILE_NAME))) {
            JsonNode adapter =
                    Program.run("info", path.toString(), "--json").succeeds().json();
            assertThat(adapter.get("kind").asText()).isEqualTo("adapter");
            assertThat(adapter.get("rank").asInt()).isEqualTo(4);
            assertThat(adapter.get("alpha").asDouble()).isEqualTo(32);
            assertThat(adapter.get("pairs").asInt()).isEqualTo(16);
        }
        assertThat(Program.run("info", output.toString(), "--tensors", "--metadata")
                        .succeeds()
                        .out())
                .contains("blk.7.attn_v.weight.lora_b", "general.type");
        Program.run("info", folder.toString()).failsWith(ExitCode.FAILED, "without adapter.gguf");
    }

    private Path data() {
        Path file = folder.resolve("data.jsonl");
        try {
            if (!Files.exists(file)) {
                Files.writeString(
                        file,
                        IntStream.range(0, 8)
                                .mapToObj(i -> i == 0
                                        ? line(QUESTION, ANSWER)
                                        : line("What is number " + i + "?", "It is " + i + "."))
                                .collect(Collectors.joining()));
            }
            return file;
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    private static String line(String question, String answer) {
        return "{\"question\":\"" + question + "\",\"answer\":\"" + answer + "\"}\n";
    }

    private static Program train(Path data, Path output, String... more) {
        List<String> command = new ArrayList<>(
                List.of("train", "--model", Program.model(), "--data", data.toString(), "--output", output.toString()));
        command.addAll(List.of(more));
        return Program.run(command.toArray(String[]::new));
    }
}
