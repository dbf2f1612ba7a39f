package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.offset;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.adapter.Adapter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** {@code --method}: one way to train after the other through all commands. */
class MethodsTest {
    @TempDir
    Path folder;

    private Path data;

    @BeforeEach
    void writeData() throws IOException {
        data = Files.writeString(
                folder.resolve("data.jsonl"),
                IntStream.range(0, 8)
                        .mapToObj(i -> "{\"question\": \"What is " + i + "?\", \"answer\": \"It is " + i + ".\"}\n")
                        .collect(Collectors.joining()));
    }

    private String[] train(Path output, String... more) {
        List<String> arguments = new ArrayList<>(List.of(
                "train",
                "--model=" + Program.model(),
                "--data=" + data,
                "--output=" + output,
                "--batch-size=4",
                "--max-steps=6",
                "--save-steps=1",
                "--save-total-limit=2",
                "--threads=1"));
        arguments.addAll(List.of(more));
        if (arguments.stream().noneMatch(option -> option.startsWith("--learning-rate="))) {
            arguments.add("--learning-rate=2e-2"); // too much for a LoRA, whose six steps would be a matter of rounding
        }
        return arguments.toArray(String[]::new);
    }

    @ParameterizedTest
    @ValueSource(strings = {"ia3", "bitfit", "full"})
    void isTrainedResumedLookedAtAskedMeasuredAndFoldedIn(String method) throws IOException {
        Path output = folder.resolve(method);
        String format = method.equals("full") ? "peft" : "both";
        Program trained = Program.run(train(
                        output, "--method", method, "--adapter-format=" + format, "--eval-data=" + data, "--json"))
                .succeeds();
        JsonNode json = trained.json();
        assertThat(json.get("eval_loss").asDouble())
                .isLessThan(json.get("eval_loss_before").asDouble() - 0.1);
        boolean full = method.equals("full");
        if (full) {
            assertThat(trained.err()).contains("are expanded from", "llama-cli -m " + output.resolve("model.gguf"));
            assertThat(output.resolve("model.gguf")).exists();
            assertThat(output.resolve("huggingface/model.safetensors")).exists();
            assertThat(output.resolve("huggingface/config.json")).content().contains("LlamaForCausalLM");
            assertThat(json.get("trainable_params")).isEqualTo(json.get("all_params"));
        } else {
            assertThat(trained.err()).contains("lorica merge").doesNotContain("llama-cli");
        }
        boolean peft = Files.exists(output.resolve(Adapter.PEFT_FILE_NAME));
        assertThat(peft).isEqualTo(method.equals("ia3"));
        assertThat(Files.readString(output.resolve("README.md")))
                .contains("- " + method, full ? "llama-cli -m model.gguf" : "lorica merge --model");

        Program.resumesToTheSameBytes(output);

        JsonNode info =
                Program.run("info", output.toString(), "--json").succeeds().json();
        assertThat(info.get("type").asText()).isEqualTo(method);
        assertThat(info.has("rank")).isFalse();
        assertThat(info.get(full ? "matrices_and_vectors" : "vectors").asInt()).isPositive();

        String[] ask = {"--instruction=What is 3?", "--temperature=0", "--max-new-tokens=8"};
        String base = generate(ask, "--model=" + Program.model());
        String tuned = generate(ask, "--model=" + Program.model(), "--adapter=" + output);
        assertThat(tuned).isNotEqualTo(base);

        Path merged = folder.resolve("merged.gguf");
        Program.run("merge", "--model=" + Program.model(), "--adapter=" + output, "--output=" + merged, "--type=F32")
                .succeeds();
        assertThat(generate(ask, "--model=" + merged)).isEqualTo(tuned);
        JsonNode live = evaluate(output);
        JsonNode folded = Program.run("eval", "--model=" + merged, "--data=" + data, "--json")
                .succeeds()
                .json();
        double tunedLoss = live.get("tuned").get("loss").asDouble();
        assertThat(tunedLoss).isLessThan(live.get("base").get("loss").asDouble());
        assertThat(folded.get("base").get("loss").asDouble()).isCloseTo(tunedLoss, offset(0.02));

        Program.run("plan", "--model=" + Program.model(), "--method=" + method, "--json")
                .succeeds();
        Program.run(
                        "export",
                        "--model=" + Program.model(),
                        "--adapter=" + output,
                        "--format=gguf",
                        "--output=" + folder.resolve("exported"))
                .failsWith(ExitCode.FAILED, "cannot be a LoRA file for llama.cpp", "lorica merge");
        Program.run(
                        "generate",
                        "--model=" + Program.model(),
                        "--adapter=" + output,
                        "--adapter=" + output,
                        "--prompt=x")
                .failsWith(ExitCode.FAILED, "cannot be added to others");
    }

    private JsonNode evaluate(Path adapter) {
        return Program.run("eval", "--model=" + Program.model(), "--adapter=" + adapter, "--data=" + data, "--json")
                .succeeds()
                .json();
    }

    private double tunedLoss(Path adapter) {
        return evaluate(adapter).get("tuned").get("loss").asDouble();
    }

    private static String generate(String[] ask, String... more) {
        List<String> arguments = new ArrayList<>(List.of("generate"));
        arguments.addAll(List.of(more));
        arguments.addAll(List.of(ask));
        return Program.run(arguments.toArray(String[]::new)).succeeds().out();
    }

    @ParameterizedTest
    @CsvSource({
        "prompt-tuning, --prompt-tuning-init-text=Answer in a few words.",
        "p-tuning, --encoder-hidden-size=16",
        "prefix-tuning, --seed=3",
    })
    void aPromptIsTrainedResumedLookedAtAskedAndReadFromPeft(String method, String option) throws IOException {
        Path output = folder.resolve("prompt");
        Program trained = Program.run(train(
                        output,
                        "--method=" + method,
                        "--num-virtual-tokens=5",
                        option,
                        "--eval-data=" + data,
                        "--json"))
                .succeeds();
        assertThat(trained.json().get("eval_loss").asDouble())
                .isLessThan(trained.json().get("eval_loss_before").asDouble());
        assertThat(trained.err())
                .contains("llama.cpp has no trained prompts or prefixes")
                .doesNotContain("llama-cli");
        Program.resumesToTheSameBytes(output);

        JsonNode info =
                Program.run("info", output.toString(), "--json").succeeds().json();
        assertThat(info.get("type").asText()).isEqualTo(method.replace('-', '_'));
        assertThat(info.get("virtual_tokens").asInt()).isEqualTo(5);
        Path peft = Files.createDirectories(folder.resolve("peft"));
        for (String name : List.of(Adapter.PEFT_CONFIG_NAME, Adapter.PEFT_FILE_NAME)) {
            Files.copy(output.resolve(name), peft.resolve(name));
        }
        assertThat(Program.run("info", peft.toString(), "--json")
                        .succeeds()
                        .json()
                        .get("virtual_tokens")
                        .asInt())
                .isEqualTo(5);
        double tuned = tunedLoss(output);
        assertThat(tuned).isLessThan(evaluate(output).get("base").get("loss").asDouble());
        isTheSame(peft, output, tuned);
        isRefused(
                output,
                "cannot be folded into a model",
                "cannot be a LoRA file for llama.cpp, which has no trained prompts; nor can it be folded");
        Program.run("plan", "--model=" + Program.model(), "--method=" + method, "--json")
                .succeeds();
    }

    @ParameterizedTest
    @CsvSource({"houlsby, gelu", "pfeiffer, relu"})
    void bottlenecksAreTrainedResumedLookedAtAskedAndReadFromAdapterHub(String placement, String nonLinearity)
            throws IOException {
        Path output = folder.resolve("bottleneck");
        String[] options = {
            "--method=bottleneck",
            "--bottleneck-placement=" + placement,
            "--non-linearity=" + nonLinearity,
            "--reduction-factor=10"
        };
        JsonNode trained = Program.run(Program.with(train(output, "--eval-data=" + data, "--json"), options))
                .succeeds()
                .json();
        assertThat(trained.get("eval_loss").asDouble())
                .isLessThan(trained.get("eval_loss_before").asDouble() - 0.1);
        Program.resumesToTheSameBytes(output);
        JsonNode info =
                Program.run("info", output.toString(), "--json").succeeds().json();
        assertThat(info.get("type").asText()).isEqualTo("bottleneck");
        assertThat(info.get("bottleneck_placement").asText()).isEqualTo(placement);
        assertThat(info.get("bottleneck_non_linearity").asText()).isEqualTo(nonLinearity);

        Path hub = Files.createDirectories(folder.resolve("hub"));
        for (String name : List.of(Adapter.PEFT_CONFIG_NAME, Adapter.ADAPTERHUB_FILE_NAME)) {
            Files.copy(output.resolve(name), hub.resolve(name));
        }
        assertThat(Program.run("info", hub.toString(), "--json")
                        .succeeds()
                        .json()
                        .get("non_linearity")
                        .asText())
                .isEqualTo(nonLinearity);
        double tuned = tunedLoss(output);
        assertThat(tuned).isLessThan(evaluate(output).get("base").get("loss").asDouble());
        isTheSame(hub, output, tuned);
        isRefused(
                output,
                "a bottleneck cannot be folded into a model",
                "which has no bottlenecks; nor can it be folded into a model");
        JsonNode plan = Program.run(
                        Program.with(new String[] {"plan", "--model=" + Program.model(), "--json"}, options))
                .succeeds()
                .json();
        assertThat(plan.get("trainable_params")).isEqualTo(trained.get("trainable_params"));
    }

    @Test
    void aLoraOfPrincipalPartsIsOneOfTwiceTheRankForPeftAndLlamaCpp() throws IOException {
        Path output = folder.resolve("pissa");
        String[] principal = {"--init-lora-weights=pissa_niter_4", "--lora-r=4", "--lora-alpha=8", "--use-rslora"};
        JsonNode trained = Program.run(Program.with(
                        train(output, "--learning-rate=1e-3", "--weight-decay=0.1", "--eval-data=" + data, "--json"),
                        principal))
                .succeeds()
                .json();
        assertThat(trained.get("eval_loss").asDouble())
                .isLessThan(trained.get("eval_loss_before").asDouble() - 0.1);
        Program.resumesToTheSameBytes(output);
        JsonNode info =
                Program.run("info", output.toString(), "--json").succeeds().json();
        assertThat(info.get("type").asText()).isEqualTo("lora");
        assertThat(info.get("rank").asInt()).isEqualTo(8);
        assertThat(info.get("frozen_half").asBoolean()).isTrue();
        assertThat(trained.get("trainable_params").asLong() * 2)
                .isEqualTo(info.get("parameters").asLong());
        JsonNode plan = Program.run(
                        Program.with(new String[] {"plan", "--model=" + Program.model(), "--json"}, principal))
                .succeeds()
                .json();
        assertThat(plan.get("trainable_params")).isEqualTo(trained.get("trainable_params"));
        Path peft = Files.createDirectories(folder.resolve("peft"));
        for (String name : List.of(Adapter.PEFT_CONFIG_NAME, Adapter.PEFT_FILE_NAME)) {
            Files.copy(output.resolve(name), peft.resolve(name));
        }
        assertThat(tunedLoss(peft)).isCloseTo(tunedLoss(output), offset(1e-6));
        Program.run(Program.with(train(folder.resolve("none"), "--lora-dropout=0.1"), principal))
                .failsWith(ExitCode.FAILED, "dropout is 0.1; it must be 0 with init pissa");
        Program.run(train(folder.resolve("none"), "--init-lora-weights=pissa_niter_0"))
                .failsWith(ExitCode.FAILED, "--init-lora-weights cannot be \"pissa_niter_0\"");
    }

    @Test
    void aLoraThatBeginsAtItsInvocationIsTrainedResumedLookedAtAskedAndNotFoldedIn() throws IOException {
        Path output = folder.resolve("activated");
        String[] invocation = {"--alora-invocation=### Response:", "--lora-r=4"};
        Program run = Program.run(Program.with(
                        train(output, "--learning-rate=5e-3", "--eval-data=" + data, "--json"), invocation))
                .succeeds();
        assertThat(run.json().get("eval_loss").asDouble())
                .isLessThan(run.json().get("eval_loss_before").asDouble() - 0.1);
        assertThat(run.err()).contains("llama-server").doesNotContain("warning", "llama-cli");
        assertThat(Files.readString(output.resolve("README.md")))
                .contains("llama-server -m")
                .doesNotContain("llama-cli");
        Program.resumesToTheSameBytes(output);

        JsonNode tokens = Program.run("info", output.toString(), "--json")
                .succeeds()
                .json()
                .get("invocation_tokens");
        assertThat(tokens).isNotEmpty();
        Path peft = Files.createDirectories(folder.resolve("peft"));
        for (String name : List.of(Adapter.PEFT_CONFIG_NAME, Adapter.PEFT_FILE_NAME)) {
            Files.copy(output.resolve(name), peft.resolve(name));
        }
        assertThat(Program.run("info", peft.toString(), "--json")
                        .succeeds()
                        .json()
                        .get("invocation_tokens"))
                .isEqualTo(tokens);
        assertThat(tunedLoss(peft)).isCloseTo(tunedLoss(output), offset(1e-6));

        String[] inside = {"--instruction=What is 3?", "--temperature=0", "--max-new-tokens=8"};
        String[] without = {"--prompt=What is 3?", "--temperature=0", "--max-new-tokens=8"};
        String model = "--model=" + Program.model();
        assertThat(generate(inside, model, "--adapter=" + output)).isNotEqualTo(generate(inside, model));
        assertThat(generate(without, model, "--adapter=" + output)).isEqualTo(generate(without, model));
        String inactive = "warning: the prompt has not the invocation \"### Response:\" (tokens ";
        String[] tuned = {"generate", model, "--adapter=" + output};
        assertThat(Program.run(Program.with(tuned, without)).succeeds().err())
                .containsOnlyOnce(inactive)
                .contains("of the adapter, which is inactive without it");
        assertThat(Program.run(Program.with(tuned, inside)).succeeds().err()).doesNotContain("inactive");
        assertThat(Program.run(Program.with(new String[] {"generate", model}, without))
                        .succeeds()
                        .err())
                .doesNotContain("inactive");
        Path prompts = Files.writeString(folder.resolve("prompts.jsonl"), "{\"prompt\": \"What is 3?\"}\n".repeat(3));
        assertThat(Program.run(
                                "generate",
                                model,
                                "--adapter=" + output,
                                "--prompts=" + prompts,
                                "--output=" + folder.resolve("answers.jsonl"),
                                "--chat-template=chatml",
                                "--max-new-tokens=2")
                        .succeeds()
                        .err())
                .containsOnlyOnce(inactive);
        Program.run("merge", model, "--adapter=" + output, "--output=" + folder.resolve("merged.gguf"))
                .failsWith(ExitCode.FAILED, "it applies to no token before its invocation");
        Path none = folder.resolve("none");
        Program.run(train(none, "--alora-invocation=never seen"))
                .failsWith(ExitCode.FAILED, "no training example has the invocation of the adapter");
        Program.run(train(none, "--alora-invocation=x", "--use-dora")).failsWith(ExitCode.FAILED, "exclude each other");
        Program.run(train(none, "--alora-invocation=x", "--method=ia3"))
                .failsWith(ExitCode.FAILED, "--alora-invocation belongs to --method lora");
    }

    @Test
    void modulesThatAreTrainedWholeGoWithTheLora() throws IOException {
        Path output = folder.resolve("saved");
        Program.run(train(output, "--lora-r=2", "--modules-to-save=lm_head,norm", "--bias=all"))
                .succeeds();
        JsonNode info =
                Program.run("info", output.toString(), "--json").succeeds().json();
        assertThat(info.get("type").asText()).isEqualTo("lora_and_weights");
        assertThat(info.get("trained_whole")).hasSize(2);
        assertThat(Files.readString(output.resolve(Adapter.PEFT_CONFIG_NAME)))
                .contains("\"lm_head\"", "\"model.norm\"");
        Path fromPeft = folder.resolve("from-peft");
        Files.createDirectories(fromPeft);
        for (String name : List.of(Adapter.PEFT_CONFIG_NAME, Adapter.PEFT_FILE_NAME)) {
            Files.copy(output.resolve(name), fromPeft.resolve(name));
        }
        String[] ask = {"--prompt=What is 3?", "--temperature=0", "--max-new-tokens=8"};
        String tuned = generate(ask, "--model=" + Program.model(), "--adapter=" + output);
        assertThat(tuned).isNotEqualTo(generate(ask, "--model=" + Program.model()));
        assertThat(generate(ask, "--model=" + Program.model(), "--adapter=" + fromPeft))
                .isEqualTo(tuned);
        Path merged = folder.resolve("merged.gguf");
        Program.run("merge", "--model=" + Program.model(), "--adapter=" + output, "--output=" + merged, "--type=F32")
                .succeeds();
        assertThat(generate(ask, "--model=" + merged)).isEqualTo(tuned);
    }

    @Test
    void aLoraOnATiedHeadIsPlannedTrainedLookedAtAskedExportedMergedAndQuantized() throws IOException {
        Path output = folder.resolve("head");
        String[] modules = {"--lora-r=2", "--target-modules=q_proj,lm_head"};
        JsonNode plan = Program.run(
                        Program.with(new String[] {"plan", "--model=" + Program.model(), "--json"}, modules))
                .succeeds()
                .json();
        JsonNode trained = Program.run(Program.with(train(output, "--eval-data=" + data, "--json"), modules))
                .succeeds()
                .json();
        assertThat(trained.get("eval_loss").asDouble())
                .isLessThan(trained.get("eval_loss_before").asDouble() - 0.1);
        // A and B of the head, [2, 256] and [4096, 2], and of q_proj in 8 blocks.
        assertThat(trained.get("trainable_params").asInt()).isEqualTo(2 * (256 + 4096) + 8 * 2 * (256 + 256));
        assertThat(plan.get("trainable_params")).isEqualTo(trained.get("trainable_params"));
        assertThat(trained.get("llama_cpp_needs_merge").asBoolean()).isTrue();
        assertThat(Files.readString(output.resolve("README.md")))
                .contains("lorica merge --model")
                .doesNotContain("llama-cli");
        assertThat(Program.run("info", output.toString()).succeeds().out()).contains("attn_q, output");

        String[] ask = {"--instruction=What is 3?", "--temperature=0", "--max-new-tokens=8"};
        String tuned = generate(ask, "--model=" + Program.model(), "--adapter=" + output);
        assertThat(tuned).isNotEqualTo(generate(ask, "--model=" + Program.model()));
        String[] export = {"export", "--model=" + Program.model(), "--adapter=" + output};
        Program.run(Program.with(export, "--format=gguf", "--output=" + folder.resolve("gguf")))
                .failsWith(ExitCode.FAILED, "no LoRA on a head that is the embedding", "lorica merge");
        Path peft = folder.resolve("peft");
        Program.run(Program.with(export, "--format=peft", "--output=" + peft)).succeeds();
        assertThat(generate(ask, "--model=" + Program.model(), "--adapter=" + peft))
                .isEqualTo(tuned);

        // The embedding stays as it is; the head becomes a tensor of its own.
        Path merged = folder.resolve("merged.gguf");
        Program.run("merge", "--model=" + Program.model(), "--adapter=" + output, "--output=" + merged)
                .succeeds();
        JsonNode model =
                Program.run("info", merged.toString(), "--json").succeeds().json();
        assertThat(model.get("parameters").asLong())
                .isEqualTo(Program.run("info", Program.model(), "--json")
                                .succeeds()
                                .json()
                                .get("parameters")
                                .asLong()
                        + 4096 * 256);
        assertThat(generate(ask, "--model=" + merged)).isEqualTo(tuned);
        Path quantized = folder.resolve("quantized.gguf");
        Program.run("quantize", merged.toString(), quantized.toString(), "--type=Q8_0")
                .succeeds();
        assertThat(generate(ask, "--model=" + quantized)).isEqualTo(tuned);
    }

    @Test
    void whatDoesNotGoTogetherIsOneLine() {
        Path output = folder.resolve("none");
        Program.run(train(output, "--method=ia3", "--lora-r=8"))
                .failsWith(ExitCode.FAILED, "--lora-r belongs to --method lora; --method ia3 has none");
        Program.run(train(output, "--feedforward-modules=down_proj"))
                .failsWith(ExitCode.FAILED, "--feedforward-modules belongs to --method ia3");
        Program.run(train(output, "--method=bitfit", "--target-modules=q_proj"))
                .failsWith(
                        ExitCode.FAILED, "--target-modules belongs to --method lora and ia3; --method bitfit has none");
        Program.run(train(output, "--method=bitfit", "--adapter-format=peft"))
                .failsWith(ExitCode.FAILED, "PEFT has no such adapters");
        Program.run(train(output, "--train-layers=0"))
                .failsWith(ExitCode.FAILED, "--train-layers belongs to --method full");
        Program.run(train(output, "--method=full", "--freeze=norms"))
                .failsWith(ExitCode.FAILED, "--freeze cannot be \"norms\"; it is one of embed, head");
        Program.run(train(output, "--method=full", "--target-modules=q_proj"))
                .failsWith(ExitCode.FAILED, "--train-layers and --freeze say what is trained");
        Program.run(train(output, "--modules-to-save=score"))
                .failsWith(ExitCode.FAILED, "module to save 'score' does not exist");
        Program.run(train(output, "--num-virtual-tokens=4"))
                .failsWith(ExitCode.FAILED, "--num-virtual-tokens belongs to --method prompt-tuning");
        Program.run(train(output, "--method=prompt-tuning", "--encoder-hidden-size=8"))
                .failsWith(ExitCode.FAILED, "--encoder-hidden-size belongs to --method p-tuning");
        Program.run(train(output, "--method=p-tuning", "--encoder-reparameterization-type=LSTM"))
                .failsWith(ExitCode.FAILED, "--encoder-reparameterization-type LSTM is not computed");
        Program.run(train(output, "--method=p-tuning", "--encoder-reparameterization-type=GRU"))
                .failsWith(ExitCode.FAILED, "--encoder-reparameterization-type GRU does not exist; it is MLP");
        Program.run(train(output, "--method=prompt-tuning", "--prompt-tuning-init=text"))
                .failsWith(ExitCode.FAILED, "there is no text to begin with");
        Program.run(train(output, "--method=bottleneck", "--target-modules=q_proj"))
                .failsWith(ExitCode.FAILED, "--bottleneck-placement says where they stand");
        Program.run(train(output, "--method=bottleneck", "--reduction-factor=0"))
                .failsWith(ExitCode.FAILED, "the reduction factor is 0; it must be at least 1");
        Program.run(train(output, "--method=lore")).failsWith(ExitCode.FAILED, "--method");
        Program.run(train(output, "--method=ia3", "--target-modules=k_proj", "--feedforward-modules=down_proj"))
                .failsWith(ExitCode.FAILED, "'down_proj' is none of the target modules");
        Program.run(train(output, "--method=ia3", "--loraplus-lr-ratio=4"))
                .failsWith(ExitCode.FAILED, "LoRA+ is a learning rate for B, which only a LoRA has");
    }

    /** Another file of an adapter has its loss, and says what it says. */
    private void isTheSame(Path other, Path output, double loss) {
        assertThat(tunedLoss(other)).isEqualTo(loss);
        String[] ask = {"--prompt=What is 3?", "--temperature=0", "--max-new-tokens=8"};
        assertThat(generate(ask, "--model=" + Program.model(), "--adapter=" + other))
                .isEqualTo(generate(ask, "--model=" + Program.model(), "--adapter=" + output));
    }

    /** Neither a merged model nor llama.cpp can have the adapter. */
    private void isRefused(Path output, String merging, String exporting) {
        String[] both = {"--model=" + Program.model(), "--adapter=" + output};
        Program.run(Program.with(new String[] {"merge", "--output=" + folder.resolve("merged.gguf")}, both))
                .failsWith(ExitCode.FAILED, merging);
        Program.run(Program.with(
                        new String[] {"export", "--format=gguf", "--output=" + folder.resolve("exported")}, both))
                .failsWith(ExitCode.FAILED, exporting);
    }
}
