package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What somebody meets who tries the program for the first time. */
class NewcomerTest {
    @TempDir
    Path folder;

    @Test
    void chatAfterTrainingTheDefaultWayAsksEachQuestionByItself() throws IOException {
        Path adapter = adapter();
        Program chat = Program.runWithInput(
                        "Who?\nWho?\nWhere?\n",
                        "chat",
                        "-m",
                        Program.model(),
                        "-a",
                        adapter.toString(),
                        "--temperature",
                        "0",
                        "-n",
                        "8")
                .succeeds();

        assertThat(chat.err().split("each is asked by itself", -1)).hasSize(2);
        String alone = Program.run(
                        "generate",
                        "-m",
                        Program.model(),
                        "-a",
                        adapter.toString(),
                        "-i",
                        "Who?",
                        "--temperature",
                        "0",
                        "-n",
                        "8")
                .succeeds()
                .out();
        assertThat(chat.out()).startsWith(alone + alone);
    }

    @Test
    void aFullContextLetsTheOldestTurnsGoAndSaysSo() {
        String words = "It is a truth universally acknowledged that a single man ".repeat(9);
        Program chat = Program.runWithInput(
                        (words + "\n").repeat(4) + words.repeat(9) + "\nWho?\n",
                        "chat",
                        "-m",
                        Program.model(),
                        "--chat-template",
                        "chatml",
                        "-n",
                        "4",
                        "--temperature",
                        "0")
                .succeeds();

        assertThat(chat.err())
                .containsOnlyOnce("from here on the oldest turns are left out")
                .contains("Ask a shorter one");
    }

    @Test
    void aConversationTakesAdaptersAndTools() throws IOException {
        Path tools = folder.resolve("tools.json");
        Files.writeString(
                tools, "[{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"parameters\": {}}}]");
        String[] chat = {"chat", "-m", Program.model(), "-a", adapter() + ":0.5", "--tools", tools.toString(), "-n", "2"
        };
        JsonNode shown = Program.runWithInput("Who?\n", Program.with(chat, "--chat-template", "qwen2.5", "--json"))
                .succeeds()
                .json();
        JsonNode without = Program.runWithInput(
                        "Who?\n", "chat", "-m", Program.model(), "-n", "2", "--chat-template", "qwen2.5", "--json")
                .succeeds()
                .json();
        assertThat(shown.get("prompt_tokens").asInt())
                .isGreaterThan(without.get("prompt_tokens").asInt() + 50);

        assertThat(Program.runWithInput("Who?\n", Program.with(chat, "--chat-template", "chatml"))
                        .succeeds()
                        .err())
                .contains("template \"chatml\" does not show tools");
        Files.writeString(tools, "{}");
        Program.run(chat).failsWith(ExitCode.FAILED, "is not a JSON list of tools");
    }

    @Test
    void aModelThatDoesNotSayHowItsTextsAreSplitIsWarnedAbout() throws IOException {
        String key = "tokenizer.ggml.pre";
        String bytes = Files.readString(Path.of(Program.model()), StandardCharsets.ISO_8859_1);
        assertThat(bytes).containsOnlyOnce(key);
        Path silent = Files.writeString(
                folder.resolve("silent.gguf"), bytes.replace(key, "tokenizer.ggml.prx"), StandardCharsets.ISO_8859_1);
        Path texts =
                Files.writeString(folder.resolve("texts.txt"), "It is a truth universally acknowledged. ".repeat(200));
        String warning = "warning: " + silent + " does not say how its texts are split (" + key + ")";
        assertThat(Program.run("generate", "-m", silent.toString(), "-p", "It is", "-n", "1")
                        .succeeds()
                        .err())
                .containsOnlyOnce(warning);
        assertThat(Program.run("eval", "-m", silent.toString(), "--text", texts.toString())
                        .succeeds()
                        .err())
                .containsOnlyOnce(warning);
        assertThat(Program.run("generate", "-m", Program.model(), "-p", "It is", "-n", "1")
                        .succeeds()
                        .err())
                .doesNotContain("warning");
    }

    @Test
    void aKeyOfAModelThatIsNotObeyedIsWarnedAbout() throws IOException {
        String key = "general.description";
        String bytes = Files.readString(Path.of(Program.model()), StandardCharsets.ISO_8859_1);
        assertThat(bytes).containsOnlyOnce(key);
        Path odd = Files.writeString(
                folder.resolve("odd.gguf"), bytes.replace(key, "llama.attention.odd"), StandardCharsets.ISO_8859_1);
        assertThat(Program.run("generate", "-m", odd.toString(), "-p", "It is", "-n", "1")
                        .succeeds()
                        .err())
                .containsOnlyOnce("warning: " + odd + ": metadata key llama.attention.odd is unknown and not obeyed");
    }

    @Test
    void asManyTextsAsWereAskedForAreGenerated() {
        String[] command = {"generate", "-m", Program.model(), "-p", "It is", "-n", "6", "--seed", "5"};
        JsonNode json = Program.run(Program.with(command, "--num_return_sequences", "3", "--json"))
                .succeeds()
                .json();
        assertThat(json.get("texts")).hasSize(3);
        assertThat(json.get("texts").get(1).asText())
                .isEqualTo(Program.run(
                                "generate", "-m", Program.model(), "-p", "It is", "-n", "6", "--seed", "6", "--json")
                        .json()
                        .get("text")
                        .asText());
        JsonNode whole = Program.run(
                        "generate",
                        "-m",
                        Program.model(),
                        "-p",
                        "It is",
                        "--max_length",
                        "9",
                        "--temperature=0",
                        "--json")
                .succeeds()
                .json();
        assertThat(whole.get("prompt_tokens").asInt()
                        + whole.get("generated_tokens").asInt())
                .isEqualTo(9);
        Program tooShort = Program.run("generate", "-m", Program.model(), "-p", "It is a truth", "--max-length", "2");
        assertThat(tooShort.exitCode()).isEqualTo(ExitCode.FAILED);
        assertThat(tooShort.err()).contains("error: --max-length is 2, and the prompt alone has");
    }

    @Test
    void answersOfEvalAreShown() throws IOException {
        Path adapter = adapter();
        Program eval = Program.run(
                        "eval",
                        "-m",
                        Program.model(),
                        "-a",
                        adapter.toString(),
                        "-d",
                        data().toString(),
                        "--answers",
                        "2")
                .succeeds();
        assertThat(eval.out()).contains("question  Who?", "expected  He.", "base ", "tuned ", "exact match");
        JsonNode json = Program.run("eval", "-m", Program.model(), "-d", data().toString(), "--answers", "1", "--json")
                .succeeds()
                .json();
        assertThat(json.get("answers")).hasSize(1);
        assertThat(json.get("answers").get(0).get("question").asText()).isEqualTo("Who?");
        assertThat(json.get("answers").get(0).has("base")).isTrue();
    }

    @Test
    void evalOfATextShowsHowFarItIs() throws IOException {
        Path text =
                Files.writeString(folder.resolve("text.txt"), "It is a truth universally acknowledged. ".repeat(40));
        assertThat(Program.run("eval", "-m", Program.model(), "--text", text.toString(), "--ctx-size", "32")
                        .succeeds()
                        .err())
                .containsPattern("windows of the text: (\\d+) of \\1");
    }

    @Test
    void infoKnowsTheFolderOfAPeftAdapter() throws IOException {
        Path adapter = adapter();
        Path peft = folder.resolve("peft");
        Program.run("export", "-m", Program.model(), "-a", adapter.toString(), "-f", "peft", "-o", peft.toString())
                .succeeds();
        Files.delete(peft.resolve("lorica_adapter.json"));

        JsonNode info =
                Program.run("info", peft.toString(), "--json").succeeds().json();
        assertThat(info.get("kind").asText()).isEqualTo("adapter");
        assertThat(info.get("rank").asInt()).isEqualTo(2);
        assertThat(info.get("pairs").asInt()).isEqualTo(8);
        assertThat(info.get("modules").get(0).asText()).isEqualTo("q_proj");
        assertThat(Program.run("info", peft.toString()).succeeds().out()).contains("PEFT", "q_proj", "16 × F32");
    }

    @Test
    void planAndTrainHaveOneDefaultLength() throws IOException {
        JsonNode plan =
                Program.run("plan", "-m", Program.model(), "--json").succeeds().json();
        JsonNode train = Program.run(
                        "train",
                        "-m",
                        Program.model(),
                        "-d",
                        data().toString(),
                        "-o",
                        folder.resolve("o").toString(),
                        "--max-steps=1",
                        "--json")
                .succeeds()
                .json();
        assertThat(plan.get("max_length")).isEqualTo(train.get("data").get("max_length"));
    }

    @Test
    void aNameThatIsNoneIsAnsweredWithWhatMayHaveBeenMeant() throws IOException {
        Files.copy(Path.of(Program.model()), folder.resolve("llama.gguf"));
        Path hf = Files.createDirectory(folder.resolve("SmolLM2"));
        Files.writeString(hf.resolve("config.json"), "{}");
        Files.writeString(folder.resolve("questions.jsonl"), "{}");

        info(folder.resolve("lama.gguf"), "does not exist; did you mean " + folder.resolve("llama.gguf") + "?");
        info(hf, "is the folder of a Hugging Face model", "convert " + hf + " model.gguf");
        info(folder, "is a folder; a GGUF file is meant, such as " + folder.resolve("llama.gguf"));
        info(Path.of("HuggingFaceTB/SmolLM2-135M-Instruct"), "hf:HuggingFaceTB/SmolLM2-135M-Instruct");
        info(Path.of("unsloth/Llama-3.2-1B-GGUF:Q8_0"), "hf:unsloth/Llama-3.2-1B-GGUF:Q8_0");
        info(Path.of("nothing-like-it.gguf"), "nothing-like-it.gguf does not exist");
        Program.run(
                        "train",
                        "-m",
                        "x",
                        "-d",
                        folder.resolve("question.jsonl").toString(),
                        "-o",
                        folder.resolve("o").toString())
                .failsWith(ExitCode.FAILED, "did you mean " + folder.resolve("questions.jsonl") + "?");
        Program.run("generate", "-m", folder.resolve("llama.gguf").toString(), "-a", "owner/adapter", "-p", "x")
                .failsWith(ExitCode.FAILED, "hf:owner/adapter");
        Program.run(
                        "convert",
                        folder.resolve("llama.gguf").toString(),
                        folder.resolve("x.gguf").toString())
                .failsWith(ExitCode.FAILED, "is a GGUF file already", "lorica quantize");
    }

    private static void info(Path path, String... parts) {
        Program.run("generate", "-m", path.toString(), "-p", "x").failsWith(ExitCode.FAILED, parts);
    }

    @Test
    void evaluationsWithoutDataAreSaidNotToHappen() throws IOException {
        String[] train = {
            "train",
            "--model=" + Program.model(),
            "--data=" + data(),
            "--output=" + folder.resolve("o"),
            "--max-steps=1",
            "--lora-r=2",
            "--target-modules=q_proj",
            "--overwrite"
        };
        String note = "will not happen: evaluations (--eval-steps), for which there are no data";
        assertThat(Program.run(Program.with(train, "--eval-steps=1")).succeeds().err())
                .contains(note);
        assertThat(Program.run(Program.with(train, "--eval-steps=1", "--eval-data=" + data()))
                        .succeeds()
                        .err())
                .doesNotContain("will not happen");
        assertThat(Program.run(train).succeeds().err()).doesNotContain("will not happen");
    }

    @Test
    void quantizeSaysWhichTensorsGotAnotherType() {
        Program mixed = Program.run(
                        "quantize",
                        Program.model(),
                        folder.resolve("mixed.gguf").toString(),
                        "--type",
                        "Q4_K_M")
                .succeeds();
        assertThat(mixed.out()).containsPattern("Q6_K instead of Q4_K: .*ffn_down");
        Program plain = Program.run(
                        "quantize",
                        Program.model(),
                        folder.resolve("plain.gguf").toString(),
                        "--type",
                        "F16")
                .succeeds();
        assertThat(plain.out()).doesNotContain("instead of");
    }

    @Test
    void theFirstRecordsAreTakenWhereOnlySoManyAreAskedFor() throws IOException {
        JsonNode train = Program.run(
                        "train",
                        "-m",
                        Program.model(),
                        "-d",
                        data().toString(),
                        "-o",
                        folder.resolve("o").toString(),
                        "--max_samples",
                        "2",
                        "--num-layers",
                        "2",
                        "--lora-r=2",
                        "--target-modules=q_proj",
                        "--evals-per-epoch=2",
                        "--eval-data",
                        data().toString(),
                        "--max-eval-samples=1",
                        "--batch-size=1",
                        "--epochs=2",
                        "--saves-per-epoch=1",
                        "--json")
                .succeeds()
                .json();
        assertThat(train.get("data").get("examples").asInt()).isEqualTo(2);
        assertThat(train.get("steps").asInt()).isEqualTo(4);
        assertThat(train.get("log").findValues("eval_loss")).hasSize(4);
        assertThat(train.get("trainable_params").asInt()).isEqualTo(2 * 2 * (256 + 256));
        assertThat(folder.resolve("o/checkpoint-2")).isDirectory();
        Program.run(
                        "train",
                        "-m",
                        "x",
                        "-d",
                        data().toString(),
                        "-o",
                        folder.resolve("p").toString(),
                        "--num-layers=0")
                .failsWith(ExitCode.FAILED, "--num-layers cannot be 0; it is 1 or more, or -1");
    }

    private Path adapter() throws IOException {
        return Program.adapter(folder.resolve("adapter"), data());
    }

    private Path data() throws IOException {
        return Files.writeString(
                folder.resolve("data.jsonl"),
                "{\"question\": \"Who?\", \"answer\": \"He.\"}\n{\"question\": \"Where?\", \"answer\": \"There.\"}\n"
                        + "{\"question\": \"When?\", \"answer\": \"Then.\"}\n");
    }
}
