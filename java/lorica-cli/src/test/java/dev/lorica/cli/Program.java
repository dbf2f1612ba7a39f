package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.adapter.Adapter;
import dev.lorica.train.Checkpoint;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;

/** Runs one command line and keeps what it wrote. */
record Program(int exitCode, String out, String err) {

    static Program run(String... args) {
        return runWithInput("", args);
    }

    static Program runWithInput(String input, String... args) {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        ByteArrayOutputStream err = new ByteArrayOutputStream();
        int exitCode = LoricaCli.run(
                new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)),
                new PrintStream(out, true, StandardCharsets.UTF_8),
                new PrintStream(err, true, StandardCharsets.UTF_8),
                args);
        return new Program(exitCode, out.toString(StandardCharsets.UTF_8), err.toString(StandardCharsets.UTF_8));
    }

    /** Asserts that it failed with this one line, without a stack trace. */
    Program failsWith(int code, String... parts) {
        assertThat(exitCode).as(err).isEqualTo(code);
        assertThat(err).startsWith("error: ").contains(parts).doesNotContain("\tat ");
        return this;
    }

    Program succeeds() {
        assertThat(exitCode).as(err).isEqualTo(ExitCode.OK);
        return this;
    }

    /** Standard output, which is to be one JSON object on one line. */
    JsonNode json() {
        assertThat(out).endsWith("\n");
        assertThat(out.strip()).doesNotContain("\n");
        try {
            return new ObjectMapper().readTree(out);
        } catch (JsonProcessingException e) {
            throw new AssertionError("not JSON: " + out, e);
        }
    }

    /** The model that is part of the source tree. */
    static String model() {
        return repository("models/austen-7m-q4_0.gguf");
    }

    /** A command with more behind it. */
    static String[] with(String[] command, String... more) {
        String[] all = Arrays.copyOf(command, command.length + more.length);
        System.arraycopy(more, 0, all, command.length, more.length);
        return all;
    }

    /** Trains an adapter of rank 2 on q_proj for one step. */
    static Path adapter(Path output, Path data, String... more) {
        run(with(
                        new String[] {
                            "train",
                            "-m",
                            model(),
                            "-d",
                            data.toString(),
                            "-o",
                            output.toString(),
                            "--max-steps=1",
                            "--lora-r=2",
                            "--target-modules=q_proj",
                            "--learning-rate=1e-2"
                        },
                        more))
                .succeeds();
        return output;
    }

    /** A small BERT in this folder. */
    static String encoder(Path folder) {
        String model = folder.resolve("bert.gguf").toString();
        run("convert", repository("java/lorica-core/src/test/resources/convert/bert"), model, "--type=F32")
                .succeeds();
        return model;
    }

    /**
     * Asserts that this training, resumed at the checkpoint before its last as if that one were damaged, writes the same adapter to the
     * byte.
     */
    static void resumesToTheSameBytes(Path output) throws IOException {
        Path adapter = output.resolve(Adapter.FILE_NAME);
        byte[] first = Files.readAllBytes(adapter);
        List<Path> checkpoints = Checkpoint.list(output);
        Files.write(checkpoints.get(checkpoints.size() - 1).resolve("training_state.bin"), new byte[] {1});
        Program resumed = run(
                        "train", "--config", output.resolve("train_config.yaml").toString(), "--resume", "--json")
                .succeeds();
        assertThat(checkpoints.get(checkpoints.size() - 2))
                .hasFileName(
                        "checkpoint-" + resumed.json().get("resumed_from_step").asInt());
        assertThat(adapter).hasBinaryContent(first);
    }

    static String repository(String path) {
        return Path.of(System.getProperty("lorica.repository", "../.."), path).toString();
    }
}
