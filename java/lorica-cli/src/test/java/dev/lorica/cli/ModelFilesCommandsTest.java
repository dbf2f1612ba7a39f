package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** {@code export}, {@code merge}, {@code quantize}, {@code convert} on what {@code train} wrote. */
class ModelFilesCommandsTest {
    @TempDir
    Path folder;

    @Test
    void whatTrainWritesIsExportedAndMergedWithoutLoss() {
        Path adapter = folder.resolve("adapter");
        String eval = Program.repository("models/data/pride_and_prejudice_eval.json");
        Program.run(
                        "train",
                        "--model",
                        Program.model(),
                        "--data",
                        eval,
                        "--output",
                        adapter.toString(),
                        "--max-steps",
                        "4",
                        "--batch-size",
                        "4",
                        "--max-length",
                        "96",
                        "--learning-rate",
                        "3e-3",
                        "--lora-r",
                        "4",
                        "--base-model-name",
                        "owner/name")
                .succeeds();
        assertThat(adapter.toFile().list())
                .contains("adapter.gguf", "adapter_config.json", "adapter_model.safetensors", "lorica_adapter.json");
        assertThat(adapter.resolve("adapter_config.json")).content().contains("\"owner/name\"");

        Path peft = folder.resolve("peft");
        Program.run(
                        "export",
                        "--model",
                        Program.model(),
                        "--adapter",
                        adapter.toString(),
                        "--format",
                        "peft",
                        "--output",
                        peft.toString())
                .succeeds();
        assertThat(peft.toFile().list())
                .containsExactlyInAnyOrder("adapter_config.json", "adapter_model.safetensors", "lorica_adapter.json");

        Path merged = folder.resolve("merged.gguf");
        JsonNode json = Program.run(
                        "merge",
                        "--model",
                        Program.model(),
                        "--adapter",
                        peft.toString(),
                        "--output",
                        merged.toString(),
                        "--type",
                        "f16",
                        "--eval-data",
                        eval,
                        "--max-length",
                        "96",
                        "--json")
                .succeeds()
                .json();
        double live = json.get("adapter_loss").asDouble();
        assertThat(live).isLessThan(0.98 * json.get("base_loss").asDouble());
        assertThat(json.get("merged_loss").asDouble()).isCloseTo(live, within(0.001 * live));

        Program.run("quantize", merged.toString(), folder.resolve("q8.gguf").toString(), "--type", "Q8_0")
                .succeeds();
        assertThat(folder.resolve("q8.gguf").toFile().length())
                .isLessThan(merged.toFile().length());
        // Weights that are not the adapter's base's, however they are called.
        Program.run(
                        "export",
                        "--model",
                        merged.toString(),
                        "--adapter",
                        adapter.toString(),
                        "--output",
                        folder.resolve("other").toString())
                .failsWith(ExitCode.FAILED, "was trained on");
    }

    @Test
    void tokensAreAddedLearnedWithTheAdapterAndFoldedIn() throws IOException {
        Path words = Files.writeString(folder.resolve("words.txt"), "<tool>\n\n zwölf \n<tool>\nthe\n");
        Path grown = folder.resolve("grown.gguf");
        Program added = Program.run(
                        "add-tokens", Program.model(), grown.toString(), "--tokens", words.toString(), "--json")
                .succeeds();
        assertThat(added.err()).contains("note: in the vocabulary already: the");
        JsonNode ids = added.json().get("added");
        assertThat(ids).hasSize(2);
        int tool = ids.get("<tool>").asInt();
        assertThat(ids.get("zwölf").asInt()).isEqualTo(tool + 1);
        String text = "Say <tool>zwölf now";
        JsonNode tokens = Program.run("tokenize", "--text", text, "--no-add-special", "--json", grown.toString())
                .succeeds()
                .json();
        assertThat(tokens.toString()).contains(tool + "," + (tool + 1));
        Program.run("add-tokens", grown.toString(), folder.resolve("x.gguf").toString(), "--tokens", words.toString())
                .failsWith(ExitCode.FAILED, "has no token that is not in the vocabulary already");
        Program.run("add-tokens", Program.model(), grown.toString(), "--tokens", words.toString())
                .failsWith(ExitCode.FAILED, "--overwrite");

        Path data = Files.writeString(
                folder.resolve("data.jsonl"), "{\"prompt\": \"Which?\", \"completion\": \"<tool>zwölf\"}\n".repeat(8));
        Path output = folder.resolve("tools");
        Program.run(
                        "train",
                        "--model=" + grown,
                        "--data=" + data,
                        "--output=" + output,
                        "--modules-to-save=embed_tokens,lm_head",
                        "--lora-r=4",
                        "--learning-rate=5e-3",
                        "--max-steps=20",
                        "--template=plain",
                        "--threads=1")
                .succeeds();
        Path merged = folder.resolve("merged-tools.gguf");
        Program.run("merge", "--model=" + grown, "--adapter=" + output, "--output=" + merged, "--type=F32")
                .succeeds();
        for (String[] model : new String[][] {{"--model=" + grown, "--adapter=" + output}, {"--model=" + merged}}) {
            String answer = Program.run(Program.with(
                            new String[] {
                                "generate", "--prompt=Which?", "--temperature=0", "--max-new-tokens=2", "--json"
                            },
                            model))
                    .succeeds()
                    .json()
                    .toString();
            assertThat(answer).contains("<tool>zwölf");
        }
    }

    @Test
    void wrongUsageIsOneLine() {
        Program.run("quantize", Program.model(), folder.resolve("x.gguf").toString(), "--type", "Q4_Z")
                .failsWith(ExitCode.FAILED, "type \"Q4_Z\" does not exist");
        Program.run("convert", folder.toString(), folder.resolve("x.gguf").toString())
                .failsWith(ExitCode.FAILED, "config.json does not exist");
        Program.run(
                        "export",
                        "--model",
                        Program.model(),
                        "--adapter",
                        folder.toString(),
                        "--output",
                        folder.toString(),
                        "--format",
                        "onnx")
                .failsWith(ExitCode.FAILED, "--format cannot be \"onnx\"; it is one of peft, gguf, both");
        Program.run("merge", "--model", Program.model()).failsWith(ExitCode.USAGE, "--adapter");
    }
}
