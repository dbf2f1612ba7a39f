package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class EvalCommandTest {
    @TempDir
    Path folder;

    @Test
    void measuresBaseAndTunedSideBySide() throws IOException {
        Path data = Files.writeString(
                folder.resolve("data.jsonl"),
                """
                {"question": "Who is Mr. Collins?", "answer": "He is a clergyman."}
                {"question": "Where is Pemberley?", "answer": "It is in Derbyshire."}
                """);
        Path text = Files.writeString(folder.resolve("text.txt"), "Mr. Collins was not a sensible man. ".repeat(12));
        Path adapter = folder.resolve("adapter");
        JsonNode trained = Program.run(
                        "train",
                        "-m",
                        Program.model(),
                        "-d",
                        data.toString(),
                        "--eval-data",
                        data.toString(),
                        "-o",
                        adapter.toString(),
                        "--max-steps",
                        "25",
                        "--learning-rate",
                        "5e-3",
                        "--json")
                .succeeds()
                .json();

        String[] command = {
            "eval",
            "-m",
            Program.model(),
            "-a",
            adapter.toString(),
            "-d",
            data.toString(),
            "--answers",
            "--text",
            text.toString(),
            "--ctx-size",
            "32",
            "--json"
        };
        JsonNode json = Program.run(command).succeeds().json();

        assertThat(json.get("base").get("loss").asDouble())
                .isCloseTo(trained.get("eval_loss_before").asDouble(), within(1e-4));
        assertThat(json.get("tuned").get("loss").asDouble())
                .isCloseTo(trained.get("eval_loss").asDouble(), within(1e-4));
        assertThat(json.get("base").get("exact_match").asDouble()).isZero();
        assertThat(json.get("tuned").get("exact_match").asDouble()).isEqualTo(1);
        assertThat(json.get("tuned").get("f1").asDouble()).isEqualTo(1);
        assertThat(json.get("base").get("text_windows").asInt()).isGreaterThan(1);
        assertThat(json.get("base").get("text_scored_tokens").asInt())
                .isEqualTo(15 * json.get("base").get("text_windows").asInt());
        assertThat(json.get("tuned").get("text_perplexity").asDouble())
                .isNotEqualTo(json.get("base").get("text_perplexity").asDouble());

        Program.run("eval", "-m", Program.model(), "-d", data.toString(), "--text", text.toString(), "--ctx-size=32")
                .succeeds();
        command[command.length - 1] = "--verbose";
        assertThat(Program.run(command).succeeds().out())
                .containsPattern("base +with adapter\n")
                .containsPattern("loss +\\d\\.\\d{4} +0\\.\\d{4}\n")
                .containsPattern("exact match +0\\.0 % +100 %\n")
                .containsPattern("perplexity of the text +\\d+\\.\\d{4} ± \\d+\\.\\d{4} +\\d");
    }

    @Test
    void badInputGetsOneClearLine() throws IOException {
        Path latin1 = Files.write(folder.resolve("latin1.txt"), new byte[] {'a', (byte) 0xe9, 'b'});

        Program.run("eval", "-m", Program.model()).failsWith(ExitCode.FAILED, "give --data or --text");
        Program.run("eval", "-m", Program.model(), "--text", "none.txt")
                .failsWith(ExitCode.FAILED, "none.txt does not exist");
        Program.run("eval", "-m", Program.model(), "--text", latin1.toString())
                .failsWith(ExitCode.FAILED, "is not UTF-8");
        Program.run("eval", "-m", Program.model(), "--text", "x", "--answers", "3")
                .failsWith(ExitCode.FAILED, "--answers needs --data");
    }

    @Test
    void anOptionThatWouldChangeNothingIsRefused() {
        String[] ofText = {"eval", "-m", Program.model(), "--text", "x"};
        Program.run(Program.with(ofText, "--max-length", "64"))
                .failsWith(ExitCode.FAILED, "--max-length is for --data; windows of --text have --ctx-size");
        Program.run(Program.with(ofText, "--template", "plain")).failsWith(ExitCode.FAILED, "--template is for --data");
        Program.run(Program.with(ofText, "--batch-size", "2")).failsWith(ExitCode.FAILED, "--batch-size is for --data");
        Program.run(Program.with(ofText, "--overwrite")).failsWith(ExitCode.FAILED, "--overwrite is for --report");
        String[] ofData = {"eval", "-m", Program.model(), "-d", "x"};
        Program.run(Program.with(ofData, "--ctx-size", "64")).failsWith(ExitCode.FAILED, "--ctx-size is for --text");
        Program.run(Program.with(ofData, "-n", "6")).failsWith(ExitCode.FAILED, "--max-tokens is for --answers");
        Program.run(Program.with(ofData, "--label-field", "l", "--overflow", "drop"))
                .failsWith(ExitCode.FAILED, "--overflow is not for texts with labels");
        Program.run("train", "-m", Program.model(), "-d", "x", "-o", "y", "--label-field", "l", "--unshown", "error")
                .failsWith(ExitCode.FAILED, "--unshown is not for texts with labels");
    }
}
