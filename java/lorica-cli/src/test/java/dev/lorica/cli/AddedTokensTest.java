package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.offset;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.FullConfig;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.exceptions.MismatchException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** {@code train --add-tokens}: an adapter with words of its own, which go with it wherever it goes. */
class AddedTokensTest {
    @TempDir
    Path folder;

    private Path tokens;
    private Path data;

    @BeforeEach
    void writeFiles() throws IOException {
        tokens = Files.writeString(folder.resolve("tokens.txt"), "<tool>\nzwölf\nthe\n");
        data = Files.writeString(
                folder.resolve("data.jsonl"), "{\"prompt\": \"Which?\", \"completion\": \"<tool>zwölf\"}\n".repeat(8));
    }

    private String[] train(Path output, String... more) {
        List<String> arguments = new ArrayList<>(List.of(
                "train",
                "--model=" + Program.model(),
                "--data=" + data,
                "--output=" + output,
                "--add-tokens=" + tokens,
                "--batch-size=4",
                "--template=plain",
                "--threads=1"));
        arguments.addAll(List.of(more));
        return arguments.toArray(String[]::new);
    }

    /** The mark before the first word is none of its letters. */
    @Test
    void wordsMayComeFromAnEditorOfWindows() throws IOException {
        Files.writeString(tokens, "\uFEFF<tool>\r\nzwölf\r\n");
        Path grown = folder.resolve("grown.gguf");
        JsonNode added = Program.run("add-tokens", Program.model(), grown.toString(), "--tokens=" + tokens, "--json")
                .succeeds()
                .json()
                .get("added");
        assertThat(added.fieldNames()).toIterable().containsExactly("<tool>", "zwölf");
        Files.write(tokens, new byte[] {(byte) 0xe9, '\n'});
        Program.run("add-tokens", Program.model(), folder.resolve("no.gguf").toString(), "--tokens=" + tokens)
                .failsWith(ExitCode.FAILED, "--tokens " + tokens + " is not valid UTF-8");
    }

    private static String answer(String... model) {
        return Program.run(Program.with(
                        new String[] {"generate", "--prompt=Which?", "--temperature=0", "--max-new-tokens=2", "--json"},
                        model))
                .succeeds()
                .json()
                .toString();
    }

    @Test
    void theModelsOwnFileWithTheAdapterKnowsThemAndSoDoesWhatIsMadeOfBoth() throws IOException {
        Path output = folder.resolve("tools");
        String[] lora = {
            "--modules-to-save=embed_tokens,lm_head",
            "--lora-r=4",
            "--save-steps=1",
            "--save-total-limit=2",
            "--max-steps=20",
            "--learning-rate=5e-3",
            "--base-model-name=owner/name"
        };
        Program trained =
                Program.run(Program.with(train(output, "--json"), lora)).succeeds();
        assertThat(trained.err()).contains("note: in the vocabulary already: the");
        int size = trained.json().get("vocabulary").asInt();
        assertThat(trained.json().get("added_tokens").toString()).isEqualTo("[\"<tool>\",\"zwölf\"]");
        assertThat(output.resolve("added_tokens.json"))
                .hasContent("{\n  \"<tool>\" : " + (size - 2) + ",\n  \"zwölf\" : " + (size - 1) + "\n}");
        assertThat(output.resolve("README.md"))
                .content()
                .contains(
                        "tokenizer.add_tokens(list(json.load(open(\"added_tokens.json\"",
                        "base.resize_token_embeddings(" + size + ")");
        assertThat(Program.run("info", output.toString(), "--json")
                        .succeeds()
                        .json()
                        .get("added_tokens"))
                .hasSize(2);

        Program.resumesToTheSameBytes(output);

        Path merged = folder.resolve("merged.gguf");
        Program.run("merge", "--model=" + Program.model(), "--adapter=" + output, "--output=" + merged, "--type=F32")
                .succeeds();
        Path peft = folder.resolve("peft");
        Program.run("export", "--model=" + Program.model(), "--adapter=" + output, "--format=peft", "--output=" + peft)
                .succeeds();
        assertThat(peft.resolve("added_tokens.json")).hasSameBinaryContentAs(output.resolve("added_tokens.json"));
        Files.delete(peft.resolve("lorica_adapter.json")); // as PEFT itself would leave it
        for (String[] model : new String[][] {
            {"--model=" + Program.model(), "--adapter=" + output},
            {"--model=" + Program.model(), "--adapter=" + output.resolve(Adapter.FILE_NAME)},
            {"--model=" + Program.model(), "--adapter=" + peft},
            {"--model=" + merged}
        }) {
            assertThat(answer(model)).contains("<tool>zwölf");
        }
        JsonNode live = Program.run(
                        "eval", "--model=" + Program.model(), "--adapter=" + output, "--data=" + data, "--json")
                .succeeds()
                .json();
        JsonNode folded = Program.run("eval", "--model=" + merged, "--data=" + data, "--template=plain", "--json")
                .succeeds()
                .json();
        assertThat(folded.at("/base/data/loss").asDouble())
                .isCloseTo(live.at("/tuned/data/loss").asDouble(), offset(2e-3));

        // As tokenizers of today have them; and a word too few.
        Path own = peft;
        Files.writeString(
                own.resolve("tokenizer.json"),
                "{\"added_tokens\": [{\"id\": 0, \"content\": \"<unk>\"}, {\"id\": " + (size - 2)
                        + ", \"content\": \"<tool>\"}, {\"id\": " + (size - 1) + ", \"content\": \"zwölf\"}]}");
        Files.delete(own.resolve("added_tokens.json"));
        assertThat(answer("--model=" + Program.model(), "--adapter=" + own)).contains("<tool>zwölf");
        Files.delete(own.resolve("tokenizer.json"));
        Program.run("generate", "--model=" + Program.model(), "--adapter=" + own, "--prompt=Which?")
                .failsWith(ExitCode.FAILED, "has an embedding of " + size + " tokens, the model " + (size - 2));

        // What was trained without them works beside them; what was trained with them, with no others.
        Path model = Path.of(Program.model());
        List<String> added = Adapter.addedTokens(output, model);
        assertThat(added).containsExactly("<tool>", "zwölf");
        try (Model plain = Model.load(model);
                Model grown = Model.load(model, ModelConfig.defaults().withAddedTokens(added));
                Model other = Model.load(model, ModelConfig.defaults().withAddedTokens(List.of("<else>", "zwölf")))) {
            Path without = folder.resolve("without");
            try (Adapter lone = Adapter.create(plain, LoraConfig.defaults())) {
                lone.save(without);
            }
            Adapter.load(grown, without).close();
            Adapter.load(grown, output).close();
            assertThat(grown.tokenizer().encode("Say <tool>zwölf", false, false))
                    .endsWith(size - 2, size - 1);
            assertThatThrownBy(() -> Adapter.load(plain, output))
                    .isInstanceOf(MismatchException.class)
                    .hasMessageContaining("has added 2 tokens to the vocabulary, from \"<tool>\" on")
                    .hasMessageContaining("load it with them");
            assertThatThrownBy(() -> Adapter.load(other, output))
                    .isInstanceOf(MismatchException.class)
                    .hasMessageContaining("the model was loaded with others");
        }
    }

    @Test
    void fullFineTuningMakesAModelWithThem() {
        Path output = folder.resolve("full");
        Program.run(train(output, "--method=full", "--max-steps=25", "--learning-rate=2e-3"))
                .succeeds();
        assertThat(answer("--model=" + output.resolve("model.gguf"))).contains("<tool>zwölf");
        assertThat(answer("--model=" + Program.model(), "--adapter=" + output)).contains("<tool>zwölf");
    }

    @Test
    void whatWouldNotLearnThemIsRefused() throws IOException {
        Path output = folder.resolve("out");
        Files.writeString(tokens, "<tool>\n");
        String needs = "LoRA with modules to save embed_tokens, or full fine-tuning"; // the head is the embedding
        Program.run(train(output)).failsWith(ExitCode.FAILED, needs);
        Program.run(train(output, "--modules-to-save=norm")).failsWith(ExitCode.FAILED, needs);
        Program.run(train(output, "--method=full", "--freeze=embed")).failsWith(ExitCode.FAILED, needs);
        Program.run(train(output, "--method=ia3"))
                .failsWith(ExitCode.FAILED, "--add-tokens belongs to --method lora and full");
        Program.run(train(output, "--adapter=" + folder)).failsWith(ExitCode.FAILED, "--add-tokens and --adapter");
        Files.writeString(tokens, "the\n");
        Program.run(train(output))
                .failsWith(ExitCode.FAILED, "has no token that is not in the vocabulary already: the");
        Files.delete(tokens);
        Program.run(train(output)).failsWith(ExitCode.FAILED, "--add-tokens", "does not exist");
        assertThat(output).doesNotExist();
    }

    @Test
    void aModelThatHasThemIsPlannedAsItIsTrained() {
        JsonNode planned = Program.run(
                        "plan",
                        "--model=" + Program.model(),
                        "--add-tokens=" + tokens,
                        "--modules-to-save=embed_tokens,lm_head",
                        "--json")
                .succeeds()
                .json();
        JsonNode without = Program.run(
                        "plan", "--model=" + Program.model(), "--modules-to-save=embed_tokens,lm_head", "--json")
                .succeeds()
                .json();
        try (Model model = Model.load(Path.of(Program.model()));
                Model grown = Model.load(
                        Path.of(Program.model()), ModelConfig.defaults().withAddedTokens(List.of("<tool>", "zwölf")));
                Adapter adapter = Adapter.create(grown, FullConfig.defaults())) {
            assertThat(planned.get("trainable_params").asLong()
                            - without.get("trainable_params").asLong())
                    .isEqualTo(4L * model.info().embedding());
            assertThat(adapter.info().parameters())
                    .isEqualTo(model.info().parameters() + 2L * model.info().embedding());
        }
    }
}
