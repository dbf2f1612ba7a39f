package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What tutorials of PEFT do with a GPT-2 and a Falcon, in commands: a folder of Hugging Face's in, an adapter for PEFT out. */
class TutorialTest {
    @TempDir
    Path folder;

    /** LoRA of rank 8, alpha 32, dropout 0.05 on c_attn and c_proj; a plain text is learned in windows. */
    @Test
    void gpt2LearnsARecipeOnItsFusedLayers() throws IOException {
        JsonNode config = tutorial("gpt2", "c_attn,c_proj");

        assertThat(texts(config.get("target_modules"))).containsExactlyInAnyOrder("c_attn", "c_proj");
        assertThat(config.get("fan_in_fan_out").asBoolean()).isTrue();
    }

    @Test
    void falconLearnsItOnQueryKeyValue() throws IOException {
        JsonNode config = tutorial("falcon_7b", "query_key_value");

        assertThat(texts(config.get("target_modules"))).containsExactly("query_key_value");
        assertThat(config.get("fan_in_fan_out").asBoolean()).isFalse();
    }

    @Test
    void withoutNamesPeftsOwnAreTaken() throws IOException {
        assertThat(texts(tutorial("qwen2", "default").get("target_modules"))).containsExactly("q_proj", "v_proj");
    }

    /** Returns what PEFT reads of the adapter. */
    private JsonNode tutorial(String family, String targets) throws IOException {
        String model = folder.resolve("model.gguf").toString();
        String adapter = folder.resolve("adapter").toString();
        String merged = folder.resolve("merged.gguf").toString();
        String recipe = Files.writeString(
                        folder.resolve("recipe.txt"),
                        "TAKE-TWO-EGGS,A-CUP-OF-FLOUR-AND-SOME-MILK.STIR.BAKE.\n".repeat(8))
                .toString();
        Program.run("convert", Program.repository("java/lorica-core/src/test/resources/convert/" + family), model)
                .succeeds();
        Program.run("plan", "-m", model, "--target-modules", targets, "--max-length", "32")
                .succeeds();
        JsonNode trained = Program.run(
                        "train",
                        "--model",
                        model,
                        "--data",
                        recipe,
                        "--output",
                        adapter,
                        "--lora-r",
                        "8",
                        "--lora-alpha",
                        "32",
                        "--lora-dropout",
                        "0.05",
                        "--target-modules",
                        targets,
                        "--max-length",
                        "32",
                        "--learning-rate",
                        "1e-2",
                        "--max-steps",
                        "8",
                        "--json")
                .succeeds()
                .json();
        assertThat(trained.get("steps").asInt()).isEqualTo(8);
        Program.run("info", model).succeeds();
        Program.run("info", adapter).succeeds();
        Program.run("eval", "-m", model, "-a", adapter, "--text", recipe, "--ctx-size", "32")
                .succeeds();
        Program.run("generate", "-m", model, "-a", adapter, "--prompt", "TAKE", "--max-tokens", "4")
                .succeeds();
        Program.run("merge", "-m", model, "-a", adapter, "-o", merged).succeeds();
        Program.run("quantize", merged, folder.resolve("small.gguf").toString(), "--type", "Q8_0")
                .succeeds();
        Path peft = folder.resolve("peft");
        Program.run("export", "-m", model, "-a", adapter, "-o", peft.toString(), "--format", "peft")
                .succeeds();
        return new ObjectMapper().readTree(peft.resolve("adapter_config.json").toFile());
    }

    private static List<String> texts(JsonNode array) {
        List<String> texts = new ArrayList<>();
        array.forEach(text -> texts.add(text.asText()));
        return texts;
    }
}
