package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.offset;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.adapter.Adapter;
import dev.lorica.train.Checkpoint;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Classifiers on encoders and on a decoder through all commands, and embeddings. */
class ClassifierTest {
    @TempDir
    Path folder;

    /** An encoder that transformers wrote, converted; or the model of the source tree. */
    private String model(String name) {
        if (name.equals("decoder")) {
            return Program.model();
        }
        Path output = folder.resolve(name + ".gguf");
        if (!Files.exists(output)) {
            Program.run(
                            "convert",
                            Program.repository("java/lorica-core/src/test/resources/convert/" + name),
                            output.toString(),
                            "--type=F32")
                    .succeeds();
        }
        return output.toString();
    }

    private Path write(String name, List<String> lines) throws IOException {
        return Files.writeString(folder.resolve(name), String.join("\n", lines) + "\n");
    }

    /** One word means one class, another the other. */
    private Path reviews() throws IOException {
        return write(
                "reviews.jsonl",
                IntStream.range(0, 24)
                        .mapToObj(i -> "{\"text\": \"" + (i % 3 == 0 ? "thes " : "the ").repeat(1 + i % 4)
                                + "\", \"label\": \"" + (i % 3 == 0 ? "bad" : "good") + "\"}")
                        .toList());
    }

    private String[] train(String model, Path data, Path output, String... more) {
        List<String> arguments = new ArrayList<>(List.of(
                "train",
                "--model=" + model,
                "--data=" + data,
                "--output=" + output,
                "--label-field=label",
                "--batch-size=8",
                "--precision=f32",
                "--threads=1"));
        arguments.addAll(List.of(more));
        return arguments.toArray(String[]::new);
    }

    @ParameterizedTest
    @ValueSource(strings = {"distilbert", "decoder"})
    void isPlannedAsItIsTrained(String name) throws IOException {
        JsonNode trained = Program.run(train(
                        model(name),
                        reviews(),
                        folder.resolve("planned"),
                        "--max-length=16",
                        "--max-steps=1",
                        "--gradient-checkpointing=off",
                        "--json"))
                .succeeds()
                .json();
        String[] plan = {
            "plan",
            "--model=" + model(name),
            "--max-length=16",
            "--batch-size=8",
            "--precision=f32",
            "--threads=1",
            "--json"
        };
        JsonNode planned =
                Program.run(Program.with(plan, "--num-labels=2")).succeeds().json();
        assertThat(planned.get("trainable_params")).isEqualTo(trained.get("trainable_params"));
        assertThat(planned.get("without_checkpointing").get("total").asLong())
                .isGreaterThanOrEqualTo(
                        trained.get("planned_memory_bytes").get("total").asLong());
        Program.run(Program.with(plan, "--num-labels=0"))
                .failsWith(ExitCode.FAILED, "--num-labels cannot be 0; it is 1 to 1048576");
    }

    @ParameterizedTest
    @CsvSource({
        "decoder, ia3, adapter_model.safetensors",
        "decoder, bitfit, ",
        "decoder, full, huggingface/model.safetensors",
        "decoder, prompt-tuning, adapter_model.safetensors",
        "decoder, p-tuning, adapter_model.safetensors",
        "decoder, prefix-tuning, adapter_model.safetensors",
        "decoder, bottleneck, ",
        "bert, ia3, adapter_model.safetensors",
        "bert, bitfit, ",
        "bert, full, huggingface/model.safetensors",
        "bert, bottleneck, ",
    })
    void isTrainedBesideEveryMethodAndSavedInWhatFilesThereAre(String name, String method, String peft)
            throws IOException {
        Path output = folder.resolve("classifier");
        String format = method.equals("full") ? "peft" : "both";
        Program.run(train(
                        model(name),
                        reviews(),
                        output,
                        "--method=" + method,
                        "--adapter-format=" + format,
                        "--max-length=16",
                        "--max-steps=2"))
                .succeeds();
        assertThat(output.resolve("adapter.gguf")).exists();
        try (Stream<Path> files = Files.walk(output)) {
            assertThat(files.map(file -> output.relativize(file).toString())
                            .filter(file -> file.endsWith(".safetensors"))
                            .toList())
                    .isEqualTo(peft == null ? List.of() : List.of(peft));
        }
        Path texts = write("texts.txt", List.of("the the", "thes"));
        JsonNode said = Program.run(
                        "classify", "--model=" + model(name), "--adapter=" + output, texts.toString(), "--json")
                .succeeds()
                .json();
        assertThat(said.get("results")).hasSize(2);
        if ("adapter_model.safetensors".equals(peft)) {
            Path again = Files.createDirectory(folder.resolve("again"));
            for (String file : List.of("adapter_model.safetensors", "adapter_config.json")) {
                Files.copy(output.resolve(file), again.resolve(file));
            }
            JsonNode read = Program.run(
                            "classify", "--model=" + model(name), "--adapter=" + again, texts.toString(), "--json")
                    .succeeds()
                    .json();
            // PEFT's files have no names of classes.
            List<Double> expected = new ArrayList<>();
            said.findValues("scores").forEach(one -> one.forEach(score -> expected.add(score.asDouble())));
            List<Double> actual = new ArrayList<>();
            read.findValues("scores").forEach(one -> one.forEach(score -> actual.add(score.asDouble())));
            assertThat(actual).isEqualTo(expected);
        }
        if (method.equals("bottleneck")) {
            Program.run(train(
                            model(name),
                            reviews(),
                            folder.resolve("none"),
                            "--method=bottleneck",
                            "--adapter-format=peft"))
                    .failsWith(ExitCode.FAILED, "AdapterHub's heads are not written; take gguf");
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"bert", "distilbert", "decoder"})
    void isTrainedMeasuredAskedMergedAndReadAgainFromPeftsFiles(String name) throws IOException {
        Path data = reviews();
        Path output = folder.resolve("classifier");
        Program trained = Program.run(train(
                        model(name),
                        data,
                        output,
                        "--epochs=16",
                        "--learning-rate=" + (name.equals("decoder") ? "1e-3" : "1e-2"),
                        "--eval-data=" + data,
                        "--load-best-model-at-end",
                        "--metric-for-best-model=accuracy",
                        "--class-weights=balanced",
                        "--json"))
                .succeeds();
        assertThat(trained.err()).contains("classes").contains("good 16, bad 8");
        assertThat(trained.json().get("labels")).hasToString("[\"bad\",\"good\"]");
        assertThat(trained.json().get("eval_metrics").get("accuracy").asDouble())
                .isGreaterThan(0.9);

        String[] eval = {
            "eval", "--model=" + model(name), "--data=" + data, "--label-field=label", "--precision=f32", "--json"
        };
        JsonNode measured = Program.run(Program.with(eval, "--adapter=" + output))
                .succeeds()
                .json();
        assertThat(measured.get("accuracy").asDouble()).isGreaterThan(0.9);
        assertThat(measured.get("f1").asDouble()).isBetween(0.8, 1.0);
        assertThat(measured.get("confusion_matrix").get(1).get(1).asInt()).isGreaterThan(13);

        String[] classify = {"classify", "--model=" + model(name), "--precision=f32", "--json"};
        String lines = "the the\n{\"text\": \"thes thes\"}\n";
        JsonNode said = Program.runWithInput(lines, Program.with(classify, "--adapter=" + output))
                .succeeds()
                .json()
                .get("results");
        assertThat(said.get(0).get("label").asText()).isEqualTo("good");
        assertThat(said.get(1).get("label").asText()).isEqualTo("bad");
        assertThat(said.get(1).get("probability").asDouble()).isGreaterThan(0.5);
        assertThat(Program.run(
                                "classify",
                                "--model=" + model(name),
                                "--adapter=" + output,
                                "--text=thes thes",
                                "--all-scores")
                        .succeeds()
                        .out())
                .startsWith("bad\t")
                .contains("\tbad=", "\tgood=");

        Path merged = folder.resolve("merged.gguf");
        Program.run("merge", "--model=" + model(name), "--adapter=" + output, "--output=" + merged, "--type=F32")
                .succeeds();
        JsonNode alone = Program.runWithInput(lines, "classify", "--model=" + merged, "--precision=f32", "--json")
                .succeeds()
                .json()
                .get("results");
        assertThat(alone.get(1).get("label").asText()).isEqualTo("bad");
        assertThat(alone.get(1).get("probability").asDouble())
                .isCloseTo(said.get(1).get("probability").asDouble(), offset(1e-3));

        JsonNode ofModel =
                Program.run("info", merged.toString(), "--json").succeeds().json();
        assertThat(ofModel.get("classifier_outputs").asInt()).isEqualTo(2);
        assertThat(ofModel.get("labels")).hasToString("[\"bad\",\"good\"]");
        assertThat(Program.run("info", output.toString(), "--json")
                        .succeeds()
                        .json()
                        .get("classifier_outputs")
                        .asInt())
                .isEqualTo(2);

        Files.delete(output.resolve(Adapter.FILE_NAME));
        Files.delete(output.resolve("lorica_adapter.json"));
        assertThat(Files.readString(output.resolve(Adapter.PEFT_CONFIG_NAME)))
                .contains("SEQ_CLS", name.equals("decoder") ? "score" : "classifier");
        JsonNode peft = Program.runWithInput(lines, Program.with(classify, "--adapter=" + output))
                .succeeds()
                .json()
                .get("results");
        assertThat(peft.get(1).get("scores").get("LABEL_0").asDouble())
                .isCloseTo(said.get(1).get("scores").get("bad").asDouble(), offset(1e-5));
    }

    @ParameterizedTest
    @ValueSource(strings = {"lora", "ia3", "bitfit", "full", "prompt-tuning"})
    void goesOnFromACheckpointToTheVeryBytes(String method) throws IOException {
        Path data = reviews();
        String[] more = {
            "--method=" + method,
            "--learning-rate=1e-2",
            "--max-steps=6",
            "--save-steps=3",
            "--save-strategy=steps",
            "--save-total-limit=2"
        };
        String[] plain = train(model("bert"), data, folder.resolve("whole"));
        Program.run(Program.with(plain, more)).succeeds();
        Path whole = folder.resolve("whole").resolve(Adapter.FILE_NAME);
        byte[] bytes = Files.readAllBytes(whole);
        List<Path> checkpoints = Checkpoint.list(folder.resolve("whole"));
        Path last = checkpoints.get(checkpoints.size() - 1);
        try (var files = Files.walk(last)) {
            for (Path file : files.sorted((a, b) -> b.compareTo(a)).toList()) {
                Files.delete(file);
            }
        }
        Program.run(Program.with(plain, Program.with(more, "--resume"))).succeeds();
        assertThat(Files.readAllBytes(whole)).isEqualTo(bytes);
        if (!method.equals("bitfit") && !method.equals("full")) {
            String[] classify = {
                "classify", "--model=" + model("bert"), "--adapter=" + folder.resolve("whole"), "--text=thes", "--json"
            };
            JsonNode ours = Program.run(classify).succeeds().json().get("results");
            Files.delete(whole);
            Files.delete(folder.resolve("whole").resolve("lorica_adapter.json"));
            JsonNode ofPeft = Program.run(classify).succeeds().json().get("results");
            assertThat(ofPeft.get(0).get("scores").get("LABEL_0").asDouble())
                    .isCloseTo(ours.get(0).get("scores").get("bad").asDouble(), offset(1e-5));
        }
    }

    @Test
    void readsTwoTextsSeveralLabelsAndNumbers() throws IOException {
        Path pairs = write(
                "pairs.jsonl",
                IntStream.range(0, 16)
                        .mapToObj(i -> "{\"a\": \"the\", \"b\": \"" + (i % 2 == 0 ? "the" : "thes")
                                + "\", \"labels\": " + (i % 2 == 0 ? "[\"x\", \"y\"]" : "[]") + ", \"score\": "
                                + (i % 2 == 0 ? 0.5 : -0.25) + "}")
                        .toList());
        Path several = folder.resolve("several");
        String[] base = {
            "train",
            "--model=" + model("bert"),
            "--data=" + pairs,
            "--text-field=a",
            "--text-pair-field=b",
            "--learning-rate=2e-2",
            "--batch-size=8",
            "--epochs=12",
            "--precision=f32",
            "--threads=1"
        };
        Program.run(Program.with(base, "--label-field=labels", "--output=" + several))
                .succeeds();
        String[] classify = {"classify", "--model=" + model("bert"), "--text-field=a", "--text-pair-field=b", "--json"};
        String lines = "{\"a\": \"the\", \"b\": \"the\"}\n{\"a\": \"the\", \"b\": \"thes\"}\n";
        JsonNode labels = Program.runWithInput(lines, Program.with(classify, "--adapter=" + several))
                .succeeds()
                .json()
                .get("results");
        assertThat(labels.get(0).get("label").asText()).isEqualTo("x,y");
        assertThat(labels.get(1).get("label").asText()).isEmpty();

        Path number = folder.resolve("number");
        Program.run(Program.with(base, "--label-field=score", "--output=" + number))
                .succeeds();
        JsonNode numbers = Program.runWithInput(lines, Program.with(classify, "--adapter=" + number))
                .succeeds()
                .json()
                .get("results");
        assertThat(numbers.get(0).get("value").asDouble()).isCloseTo(0.5, offset(0.25));
        assertThat(numbers.get(1).get("value").asDouble()).isCloseTo(-0.25, offset(0.25));
    }

    @Test
    void embedsTextsOfAnEncoderAndOfADecoder() {
        for (String name : List.of("bert", "roberta", "decoder")) {
            JsonNode two = Program.runWithInput("the\nthe the\n", "embed", "--model=" + model(name), "--json")
                    .succeeds()
                    .json();
            assertThat(two.get("pooling").asText()).isEqualTo(name.equals("decoder") ? "last" : "mean");
            double squares = 0;
            for (JsonNode value : two.get("embeddings").get(0)) {
                squares += value.asDouble() * value.asDouble();
            }
            assertThat(squares).isCloseTo(1, offset(1e-5));
            assertThat(two.get("embeddings").get(0))
                    .isNotEqualTo(two.get("embeddings").get(1));
        }
        String line = Program.run("embed", "--model=" + model("bert"), "--text=the", "--pooling=cls", "--no-normalize")
                .succeeds()
                .out();
        assertThat(line).startsWith("[").endsWith("]\n");
    }

    /** Editors of Windows put a mark before a text and end lines otherwise. */
    @Test
    void readsTextsThatWindowsWrote() throws IOException {
        String[] embed = {"embed", "--model=" + model("bert"), "--json"};
        String lines = "{\"text\": \"the\"}\nthe the\n";
        JsonNode plain = Program.runWithInput(lines, embed).succeeds().json();
        String windows = "\uFEFF" + lines.replace("\n", "\r\n");
        assertThat(Program.runWithInput(windows, embed).succeeds().json()).isEqualTo(plain);
        Path file = Files.writeString(folder.resolve("windows.jsonl"), windows);
        assertThat(Program.run(Program.with(embed, file.toString())).succeeds().json())
                .isEqualTo(plain);
    }

    @Test
    void aTextIsGivenOrReadAndWhatCannotBeReadIsSaid() throws IOException {
        String[] embed = {"embed", "--model=" + model("bert")};
        Path file = write("texts.txt", List.of("the"));
        Program.run(Program.with(embed, file.toString(), "--text=the"))
                .failsWith(
                        ExitCode.FAILED, "--text is the one text that is looked at; FILE is for texts that are read");
        Program.run(Program.with(embed, "--text-field=x", "--text=the"))
                .failsWith(ExitCode.FAILED, "--text-field is for texts that are read");
        Program.run(Program.with(embed, folder.resolve("textz.txt").toString()))
                .failsWith(ExitCode.FAILED, "textz.txt does not exist; did you mean", "texts.txt?");
        Path latin = Files.write(folder.resolve("latin.txt"), new byte[] {'c', 'a', 'f', (byte) 0xe9, '\n'});
        Program.run(Program.with(embed, latin.toString())).failsWith(ExitCode.FAILED, "latin.txt is not valid UTF-8");
    }

    @Test
    void whatIsPutAsideIsCountedAsTheRest() throws IOException {
        Program split = Program.run(
                        train(model("bert"), reviews(), folder.resolve("split"), "--eval-split=0.25", "--max-steps=1"))
                .succeeds();
        assertThat(split.out())
                .contains(
                        "eval data 6 examples",
                        "trained on: 6 tokens",
                        "data left 18 examples",
                        "trained on: 18 tokens")
                .doesNotContain("answers are drawn");
    }

    @Test
    void ofAccuracyASweepTakesTheLargest() throws IOException {
        String[] train = train(
                model("bert"),
                reviews(),
                folder.resolve("rates"),
                "--eval-data=" + reviews(),
                "--max-length=16",
                "--epochs=6",
                "--lora-dropout=0",
                "--metric=accuracy",
                "--grid=learning-rate=1e-9,2e-2",
                "--json");
        train[0] = "sweep";
        JsonNode runs = Program.run(train).succeeds().json().get("runs");
        double first = runs.get(0).get("accuracy").asDouble();
        double second = runs.get(1).get("accuracy").asDouble();
        assertThat(first).isGreaterThan(second);
    }

    @Test
    void saysInOneLineWhatCannotBe() throws IOException {
        Path output = folder.resolve("output");
        Path one =
                write("one.jsonl", List.of("{\"text\": \"the\", \"label\": 1}", "{\"text\": \"the\", \"label\": 1}"));
        Program.run(train(model("bert"), one, output))
                .failsWith(ExitCode.FAILED, "every label is \"1\"", "two classes");
        Path mixed = write(
                "mixed.jsonl",
                List.of("{\"text\": \"the\", \"label\": \"good\"}", "{\"text\": \"the\", \"label\": 0.5}"));
        Program.run(train(model("bert"), mixed, output))
                .failsWith(
                        ExitCode.FAILED, "line 2", "a number with a fraction, where others are names such as \"good\"");
        Path unseen = write("unseen.jsonl", List.of("{\"text\": \"the\", \"label\": \"odd\"}"));
        Program.run(train(model("bert"), reviews(), output, "--eval-data=" + unseen))
                .failsWith(
                        ExitCode.FAILED, "the label \"odd\" was never seen in training; there are \"bad\", \"good\"");
        Program.run(train(model("bert"), reviews(), output, "--ask=Who?")).failsWith(ExitCode.FAILED, "--ask");
        Program.run(train(model("bert"), reviews(), output, "--prompt-field=text"))
                .failsWith(ExitCode.FAILED, "--label-field is for texts with labels");
        Program.run(
                        "classify",
                        "--model=" + Program.repository("native/tests/data/tokenizer/wordpiece-small.gguf"),
                        "--text=the")
                .failsWith(ExitCode.FAILED, "has no tensors: it is a vocabulary alone");
        Program.run("classify", "--model=" + Program.model(), "--text=the")
                .failsWith(ExitCode.FAILED, "there is no classifier");
        assertThat(Program.run("generate", "--model=" + model("bert"), "--prompt=the")
                        .err())
                .contains("error: architecture 'bert' is an encoder");
    }
}
