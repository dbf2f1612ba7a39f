package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.adapter.AdapterMetadata;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** {@code lorica data}, and the data options of train and generate, on the model of the source tree. */
class DataCommandTest {
    private static final String CHAT = "{\"messages\":[{\"role\":\"user\",\"content\":\"Who is Mr. Collins?\"},"
            + "{\"role\":\"assistant\",\"content\":\"A clergyman.\"},{\"role\":\"user\",\"content\":\"Whose cousin?\"},"
            + "{\"role\":\"assistant\",\"content\":\"Mr. Bennet's.\"}]}\n";

    @TempDir
    Path folder;

    @Test
    void reportsWhatTrainingWouldLearn() throws IOException {
        Path chats = write("chats.jsonl", CHAT + CHAT + CHAT.replace("A clergyman.", "Word. ".repeat(100)));

        Program program =
                data(chats, "--chat-template", "vicuna", "--max-length", "128").succeeds();

        assertThat(program.out())
                .contains("jsonl, 3 records, fields messages, chat template vicuna")
                .contains(
                        "1 example equal to one before",
                        "1 example longer than 128 tokens: left out",
                        "warning: 6 turns")
                .contains("lengths: median ", " too long", "batches   1 of 4 examples: ")
                .contains("USER: Who is Mr. Collins?", "ASSISTANT:⟦ A clergyman.</s>", "Mr. Bennet's.</s>")
                .doesNotContain("\u001b[");

        JsonNode json = data(chats, "--chat-template", "vicuna", "--max-length", "128", "--json")
                .succeeds()
                .json();
        JsonNode file = json.get("files").get(0);
        assertThat(file.get("format").asText()).isEqualTo("jsonl");
        assertThat(file.get("records").asInt()).isEqualTo(3);
        assertThat(file.get("dropped").asInt()).isEqualTo(1);
        assertThat(file.get("duplicates").asInt()).isEqualTo(1);
        assertThat(json.get("examples").asInt()).isEqualTo(2);
        assertThat(json.get("batches").get("fill").asDouble()).isEqualTo(1);
        int counted = 0;
        for (JsonNode count : file.get("lengths").get("histogram")) {
            counted += count.asInt();
        }
        assertThat(counted).isEqualTo(3);
    }

    @Test
    void saysWhatIsNotShownNotLearnedNotUsedAndLeftOut() throws IOException {
        String begin =
                "{\"source\": \"x\", \"messages\": [{\"role\": \"user\", \"content\": \"A?\"}, {\"role\": \"assistant\", ";
        Path chats = write(
                "chats.jsonl",
                begin + "\"content\": \"\", \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {}}}]},"
                        + " {\"role\": \"user\", \"content\": \"B?\"}, {\"role\": \"assistant\", \"content\": \"C.\"}]}\n"
                        + begin + "\"content\": null, \"name\": \"D\"}]}\n");

        assertThat(data(chats, "--chat-template", "chatml").succeeds().out().replaceAll("\\s+", " "))
                .contains("1 conversation that the template cannot show: left out (--unshown)")
                .contains("the first: " + chats + ", line 2, turn 2 (assistant): the chat template (chatml) fails")
                .contains("1 turn of the assistant of which the template shows nothing: not learned")
                .contains("warning: the template does not show tool_calls (1)")
                .contains("fields not used: source");
        data(chats, "--chat-template", "chatml", "--unshown", "error")
                .failsWith(ExitCode.FAILED, "chats.jsonl, line 2, turn 2 (assistant)");
    }

    @Test
    void severalFilesHaveWeights() throws IOException {
        Path csv = write("a.csv", "\uFEFFquestion,answer\r\nA?,B.\r\nC?,\"D,\r\nE.\"\r\n");
        Path json = write("b.json", "[{\"prompt\":\"F?\",\"completion\":\"G.\"}]");
        Path text = write("c.txt", "It is a truth universally acknowledged.\n");

        JsonNode report = Program.run(
                        "data",
                        "-m",
                        Program.model(),
                        "-d",
                        csv + ":2",
                        "-d",
                        json.toString(),
                        "-d",
                        text.toString(),
                        "--json")
                .succeeds()
                .json();

        assertThat(report.get("examples").asInt()).isEqualTo(2 * 2 + 1 + 1);
        assertThat(report.get("files"))
                .extracting(file -> file.get("format").asText())
                .containsExactly("csv", "json", "text");
        Path chats = write("d.jsonl", CHAT);
        Program.run("data", "-m", Program.model(), "-d", csv.toString(), "-d", chats.toString())
                .failsWith(
                        ExitCode.FAILED, "d.jsonl holds conversations", "no chat template", "--chat-template: chatml");
        Program.run(
                        "data",
                        "-m",
                        Program.model(),
                        "-d",
                        csv.toString(),
                        "-d",
                        chats.toString(),
                        "--chat-template",
                        "chatml")
                .succeeds();
    }

    @Test
    void badInputGetsOneClearLine() throws IOException {
        Path file = write("a.jsonl", "{\"question\":\"A\",\"anwser\":\"B\"}\n");

        data(file, "--response-field", "answer")
                .failsWith(
                        ExitCode.FAILED, "a.jsonl, line 1 (record 1): no field \"answer\"", "did you mean \"anwser\"?");
        data(file, "--response-field", "anwser", "--template", "model.yaml")
                .failsWith(ExitCode.FAILED, "model.yaml does not exist");
        data(file, "--response-field", "anwser", "--chat-template", "lama3")
                .failsWith(ExitCode.FAILED, "no chat template is called \"lama3\"", "llama3");
        data(file, "--response-field", "anwser", "--template", "chat")
                .failsWith(ExitCode.FAILED, "the model has no chat template");
        data(
                        file,
                        "--response-field",
                        "anwser",
                        "--chat-template",
                        write("x.jinja", "{% if %}").toString())
                .failsWith(ExitCode.FAILED, "line 1");
        data(file, "--response-field", "anwser", "--system", "S")
                .failsWith(ExitCode.FAILED, "--system is for conversations");
    }

    @Test
    void takesATemplateFromAFile() throws IOException {
        Path template = write(
                "own.yaml",
                "prompt: \"Q: {instruction}\\nA: \"\nprompt_with_input: \"{input}\\nQ: {instruction}\\nA: \"\n");
        Path file = write("a.jsonl", "{\"instruction\":\"Who?\",\"input\":\"About him.\",\"output\":\"He.\"}\n");

        assertThat(data(file, "--template", template.toString()).succeeds().out())
                .contains("template own.yaml", "│ About him.\n  │ Q: Who?\n  │ A: ⟦He.");
        data(file, "--template", write("bad.yaml", "promt: x\n").toString())
                .failsWith(ExitCode.FAILED, "there is no \"promt\" in a template");
        data(file, "--template", write("empty.yaml", "prompt: x\n").toString())
                .failsWith(ExitCode.FAILED, "has no {instruction} in it");
    }

    /** What was trained in a template is asked in it. */
    @Test
    void generationUsesTheTemplateOfTraining() throws IOException {
        Path chats = write("chats.jsonl", CHAT);
        Path output = folder.resolve("adapter");
        String answer = "A clergyman.</s>";

        Program.run(
                        "train",
                        "-m",
                        Program.model(),
                        "-d",
                        chats.toString(),
                        "-o",
                        output.toString(),
                        "--chat-template",
                        "vicuna",
                        "--system",
                        "Be brief.",
                        "--max-steps",
                        "40",
                        "--learning-rate",
                        "5e-3",
                        "--lora-dropout",
                        "0")
                .succeeds();

        JsonNode template = new ObjectMapper()
                .readTree(output.resolve(AdapterMetadata.FILE_NAME).toFile())
                .get("template");
        assertThat(template.get("source").asText()).contains("ASSISTANT: ");
        assertThat(template.get("system").asText()).isEqualTo("Be brief.");
        String[] ask = {"generate", "-m", Program.model(), "-a", output.toString(), "--temperature", "0", "-n", "16"};
        assertThat(Program.run(Program.with(ask, "-i", "Who is Mr. Collins?"))
                        .succeeds()
                        .out()
                        .strip())
                .isEqualTo(answer);
        Program chat = Program.runWithInput(
                        "Who is Mr. Collins?\n\nWhose cousin?\n",
                        Program.with(new String[] {"chat"}, Arrays.copyOfRange(ask, 1, ask.length)))
                .succeeds();
        assertThat(chat.out().lines().map(String::strip)).contains(answer).hasSizeGreaterThanOrEqualTo(2);
        Program.run("generate", "-m", Program.model(), "-p", "x", "--system", "S")
                .failsWith(ExitCode.FAILED, "--system, --tools and --chat-template are not for --prompt");
    }

    @Test
    void putsAShareAsideForEvaluation() throws IOException {
        StringBuilder lines = new StringBuilder();
        for (int i = 0; i < 20; i++) {
            lines.append("{\"question\":\"Q")
                    .append(i)
                    .append("\",\"answer\":\"A")
                    .append(i)
                    .append("\"}\n");
        }
        Path file = write("a.jsonl", lines.toString());
        Path output = folder.resolve("adapter");

        JsonNode json = Program.run(
                        "train",
                        "-m",
                        Program.model(),
                        "-d",
                        file.toString(),
                        "-o",
                        output.toString(),
                        "--eval-split",
                        "0.1",
                        "--max-steps",
                        "1",
                        "--json")
                .succeeds()
                .json();

        assertThat(json.get("eval_loss").isNumber()).isTrue();
        assertThat(json.get("data").get("examples").asInt()).isEqualTo(18);
        assertThat(Files.readString(output.resolve("train_config.yaml"))).contains("eval_split: 0.1", "- " + file);
        Program.run("train", "-m", Program.model(), "-d", file.toString(), "-o", output + "2", "--eval-split", "1.5")
                .failsWith(ExitCode.FAILED, "a share of 1.5 of 20 examples");
    }

    private static Program data(Path file, String... more) {
        return Program.run(Program.with(new String[] {"data", "-m", Program.model(), "-d", file.toString()}, more));
    }

    private Path write(String name, String content) throws IOException {
        return Files.writeString(folder.resolve(name), content);
    }
}
