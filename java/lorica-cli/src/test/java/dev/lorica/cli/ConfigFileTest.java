package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.adapter.Adapter;
import dev.lorica.exceptions.LoricaException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import picocli.CommandLine;
import picocli.CommandLine.Model.OptionSpec;

class ConfigFileTest {
    @TempDir
    Path folder;

    private final List<String> notes = new ArrayList<>();

    @Test
    void everyKeyIsAnOption() throws IOException {
        assertThat(expand(
                        """
                model: llama.gguf
                lora_r: 8
                lora-dropout: 0.05
                learning_rate: 2e-4
                target_modules: [q_proj, v_proj]
                train_on_prompt: true
                load_best_model_at_end: false
                eval_data: null
                save_strategy: no
                ask: ["Who is he?", "Who, then, is she?"]
                """,
                        "--json"))
                .containsExactly(
                        "train",
                        "--model=llama.gguf",
                        "--lora-r=8",
                        "--lora-dropout=0.05",
                        "--learning-rate=2.0E-4",
                        "--target-modules=q_proj,v_proj",
                        "--train-on-prompt",
                        "--save-strategy=false",
                        "--ask=Who is he?",
                        "--ask=Who, then, is she?",
                        "--json");
        assertThat(notes).isEmpty();
    }

    /** Of accuracy transformers says so, and the other would be wrong. */
    @Test
    void whichMetricIsBetterGreaterIsAsItIs() throws IOException {
        for (String settings : List.of(
                "metric_for_best_model: accuracy\ngreater_is_better: true\n",
                "metric_for_best_model: eval_f1\ngreater_is_better: true\n")) {
            assertThat(expand(settings)).hasSize(2);
        }
        expand("metric_for_best_model: eval_loss\ngreater_is_better: false\n");
        expand("greater_is_better: false\n");
        assertThatThrownBy(() -> expand("metric_for_best_model: accuracy\ngreater_is_better: false\n"))
                .hasMessageContaining("greater_is_better cannot be false here: of accuracy the greatest is the best");
        assertThatThrownBy(() -> expand("greater_is_better: true\n"))
                .hasMessageContaining("of loss the smallest is the best");
        Program.run("train", "--metric-for-best-model", "f1", "--greater_is_better", "True")
                .failsWith(ExitCode.USAGE, "missing: --model");
        Program.run("train", "-m=a", "-d=b", "-o=c", "--greater_is_better", "True")
                .failsWith(ExitCode.FAILED, "of loss the smallest is the best");
    }

    /** Most files of transformers ask for it. */
    @Test
    void aServiceThatIsReportedToElsewhereIsNoReasonToStop() throws IOException {
        Path data = Files.writeString(folder.resolve("data.jsonl"), "{\"question\": \"a\", \"answer\": \"b\"}\n");
        Path adapter = folder.resolve("adapter");
        Program.adapter(adapter, data, "--report-to=wandb", "--report-to=tensorboard");
        assertThat(adapter.resolve("runs")).isDirectory();
        Program refused = Program.run(
                "train", "-m=" + Program.model(), "-d=" + data, "-o=" + folder.resolve("no"), "--report-to=fax");
        refused.failsWith(ExitCode.FAILED, "--report-to cannot be \"fax\"");
    }

    @Test
    void aValueThatIsCalledLikeAnOptionIsAValue() throws IOException {
        assertThat(expand("seed: 7\nadapter: old\n", "--ask", "seed", "--output", "adapter"))
                .containsExactly("train", "--seed=7", "--adapter=old", "--ask", "seed", "--output", "adapter");
        Program.run("train", "-m", "a", "-d", "b.json", "-o", "c", "--max-steps", "1")
                .failsWith(ExitCode.FAILED, "b.json does not exist");
    }

    /** Axolotl's, LLaMA-Factory's and mlx-lm's, as their own examples have them. */
    @Test
    void whatTheirExamplesSayBesideIsKnown() throws IOException {
        assertThat(
                        expand(
                                """
                eval_table_size:
                eval_max_new_tokens: 128
                flash_attn_cross_entropy: false
                flash_attn_fuse_mlp: true
                sample_packing_eff_est: 0.9
                gpu_memory_limit: 20GiB
                lora_on_cpu: true
                is_llama_derived_model: true
                use_tensorboard: true
                excess_length_strategy: truncate
                auto_resume_from_checkpoints: true
                use_unsloth_gc: true
                infer_backend: huggingface
                mix_strategy: concat
                enable_thinking: true
                disable_shuffling: false
                mask_prompt: false
                """))
                .containsExactly("train", "--overflow=truncate", "--resume=true", "--train-on-prompt=true");
        assertThat(expand("mask_prompt: true\n")).containsExactly("train");
        assertThatThrownBy(() -> expand("disable_shuffling: true\nmix_strategy: interleave_over\n"))
                .hasMessageContaining("disable_shuffling is not supported")
                .hasMessageContaining("mix_strategy cannot be interleave_over here, only concat");
    }

    @Test
    void whatIsNoYamlIsSaidWithWhatWasMeant() {
        assertThatThrownBy(() -> expand("model: [a\n"))
                .hasMessageContaining("line 1: while parsing a flow sequence: expected ',' or ']'");
    }

    @Test
    void theCommandLineOverrides() throws IOException {
        assertThat(expand(
                        """
                model: a.gguf
                epochs: 3
                eval_strategy: epoch
                warmup_steps: 10
                lora_alpha: 16
                """,
                        "-m",
                        "b.gguf",
                        "--epochs=1",
                        "--eval-steps",
                        "5",
                        "--warmup-ratio=0.1"))
                .containsExactly(
                        "train",
                        "--lora-alpha=16",
                        "-m",
                        "b.gguf",
                        "--epochs=1",
                        "--eval-steps",
                        "5",
                        "--warmup-ratio=0.1");
    }

    @Test
    void understandsHuggingFace() throws IOException {
        assertThat(
                        expand(
                                """
                model_name_or_path: base.gguf
                per_device_train_batch_size: 2
                per_device_eval_batch_size: 4
                num_train_epochs: 3.0
                lr_scheduler_type: cosine_with_min_lr
                lr_scheduler_kwargs: {min_lr: 1.0e-5}
                evaluation_strategy: steps
                save_total_limit: 2
                optim: adamw_torch
                group_by_length: true
                neftune_noise_alpha: 5
                metric_for_best_model: eval_loss
                resume_from_checkpoint: auto
                bf16: true
                """))
                .containsExactly(
                        "train",
                        "--model=base.gguf",
                        "--batch-size=2",
                        "--eval-batch-size=4",
                        "--epochs=3.0",
                        "--lr-scheduler-type=cosine_with_min_lr",
                        "--min-learning-rate=1.0E-5",
                        "--eval-strategy=steps",
                        "--save-total-limit=2",
                        "--optim=adamw_torch",
                        "--group-by-length",
                        "--neftune-noise-alpha=5",
                        "--metric-for-best-model=eval_loss",
                        "--resume=auto");
        assertThat(notes).singleElement().asString().contains("mean nothing here: bf16");
    }

    @Test
    void understandsAxolotl() throws IOException {
        assertThat(
                        expand(
                                """
                base_model: base.gguf
                load_in_4bit: true
                adapter: qlora
                datasets:
                  - path: data.jsonl
                    type: alpaca
                val_set_size: 0
                output_dir: out
                sequence_len: 512
                sample_packing: true
                lora_r: 32
                lora_target_linear: true
                micro_batch_size: 2
                num_epochs: 4
                optimizer: adamw_bnb_8bit
                loraplus_lr_ratio: 16
                peft_use_dora: true
                peft_layers_to_transform: [0, 1]
                lr_scheduler: cosine
                train_on_inputs: false
                """))
                .containsExactly(
                        "train",
                        "--model=base.gguf",
                        "--data=data.jsonl",
                        "--output=out",
                        "--max-length=512",
                        "--lora-r=32",
                        "--target-modules=all-linear",
                        "--batch-size=2",
                        "--epochs=4",
                        "--optim=adamw_bnb_8bit",
                        "--loraplus-lr-ratio=16",
                        "--use-dora",
                        "--layers-to-transform=0,1",
                        "--lr-scheduler-type=cosine");
    }

    @Test
    void understandsLlamaFactory() throws IOException {
        assertThat(
                        expand(
                                """
                model_name_or_path: base.gguf
                stage: sft
                do_train: true
                finetuning_type: lora
                lora_rank: 8
                lora_target: all
                dataset: data.json
                cutoff_len: 2048
                use_rslora: true
                rank_pattern: {v_proj: 4, "layers.0.mlp": 2}
                output_dir: out
                plot_loss: true
                overwrite_output_dir: true
                """))
                .containsExactly(
                        "train",
                        "--model=base.gguf",
                        "--method=lora",
                        "--lora-r=8",
                        "--target-modules=all-linear",
                        "--data=data.json",
                        "--max-length=2048",
                        "--use-rslora",
                        "--rank-pattern=v_proj=4",
                        "--rank-pattern=layers.0.mlp=2",
                        "--output=out",
                        "--overwrite");
    }

    @Test
    void understandsDataOfAxolotlAndLlamaFactory() throws IOException {
        assertThat(
                        expand(
                                """
                datasets:
                  - path: chats.jsonl
                    type: chat_template
                    field_messages: dialog
                    roles_to_train: [assistant]
                  - path: questions.csv:0.5
                    type: alpaca
                chat_template: tokenizer_default
                default_system: Be brief.
                train_on_eos: turn
                val_set_size: 0.05
                """))
                .containsExactly(
                        "train",
                        "--data=chats.jsonl",
                        "--messages-field=dialog",
                        "--data=questions.csv:0.5",
                        "--chat-template=tokenizer_default",
                        "--system=Be brief.",
                        "--eval-split=0.05");
        assertThat(expand("template: llama3\nval_size: 0.1\ncutoff_len: 512\n", "--eval-data", "e.json"))
                .containsExactly("train", "--template=llama3", "--max-length=512", "--eval-data", "e.json");
    }

    @Test
    void takesTheExampleOfAxolotl() throws IOException {
        assertThat(expand(example("axolotl.yml")))
                .containsExactly(
                        "train",
                        "--model=NousResearch/Llama-3.2-1B",
                        "--data=questions.jsonl",
                        "--eval-split=0.1",
                        "--output=./outputs/lora-out",
                        "--max-length=2048",
                        "--lora-r=16",
                        "--lora-alpha=32",
                        "--lora-dropout=0.05",
                        "--target-modules=gate_proj,down_proj,up_proj,q_proj,v_proj,k_proj,o_proj",
                        "--gradient-accumulation-steps=2",
                        "--batch-size=2",
                        "--epochs=1",
                        "--optim=adamw_8bit",
                        "--lr-scheduler-type=cosine",
                        "--learning-rate=2.0E-4",
                        "--gradient-checkpointing=true",
                        "--logging-steps=1",
                        "--warmup-steps=10",
                        "--evals-per-epoch=4",
                        "--saves-per-epoch=1",
                        "--weight-decay=0.0");
        assertThat(notes)
                .hasSize(2)
                .anyMatch(
                        note -> note.endsWith("asked for, and will not happen: wandb_project, loss_watchdog_threshold,"
                                + " loss_watchdog_patience"))
                .anyMatch(note -> note.contains("these mean nothing here: ") && note.contains("flash_attention"));
    }

    @Test
    void takesTheExampleOfLlamaFactory() throws IOException {
        Files.writeString(
                folder.resolve("dataset_info.json"),
                """
                {"identity": {"file_name": "identity.json"},
                 "alpaca_en_demo": {"file_name": "demo.json",
                   "columns": {"prompt": "ask", "query": "about", "response": "reply"}},
                 "far": {"hf_hub_url": "owner/far"}, "pairs": {"file_name": "p.json", "ranking": true}}
                """);
        String yaml = example("llama-factory.yaml").replace("DATASETS", folder.toString());
        assertThat(expand(yaml))
                .containsExactly(
                        "train",
                        "--model=meta-llama/Meta-Llama-3-8B-Instruct",
                        "--method=lora",
                        "--lora-r=8",
                        "--target-modules=all-linear",
                        "--data=" + folder.resolve("identity.json"),
                        "--data=" + folder.resolve("demo.json"),
                        "--prompt-field=ask",
                        "--input-field=about",
                        "--response-field=reply",
                        "--template=llama3",
                        "--max-length=2048",
                        "--max-samples=1000",
                        "--output=saves/llama3-8b/lora/sft",
                        "--logging-steps=10",
                        "--save-steps=500",
                        "--overwrite",
                        "--report-to=none",
                        "--batch-size=1",
                        "--gradient-accumulation-steps=8",
                        "--learning-rate=1.0E-4",
                        "--epochs=3.0",
                        "--lr-scheduler-type=cosine",
                        "--warmup-ratio=0.1",
                        "--eval-split=0.1",
                        "--eval-batch-size=1",
                        "--eval-strategy=steps",
                        "--eval-steps=500")
                .doesNotContain("--max-eval-samples");
        assertThat(notes).anyMatch(note -> note.endsWith("asked for, and will not happen: plot_loss"));
        assertThatThrownBy(() -> expand(yaml.replace("identity,alpaca_en_demo", "far,pairs")))
                .hasMessageContaining("far has no file_name")
                .hasMessageContaining("only files of this machine are read");
    }

    @Test
    void takesTheExampleOfMlx() throws IOException {
        Path data = Files.createDirectory(folder.resolve("data"));
        Files.writeString(data.resolve("train.jsonl"), "");
        Files.writeString(data.resolve("valid.jsonl"), "");
        assertThat(expand(example("mlx-lm.yaml").replace("DATA_FOLDER", data.toString())))
                .containsExactlyInAnyOrder(
                        "train",
                        "--model=mlx_model",
                        "--optim=adamw",
                        "--adam-beta1=0.9",
                        "--adam-beta2=0.98",
                        "--adam-epsilon=1.0E-6",
                        "--weight-decay=0.05",
                        "--data=" + data.resolve("train.jsonl"),
                        "--eval-data=" + data.resolve("valid.jsonl"),
                        "--seed=0",
                        "--num-layers=16",
                        "--batch-size=4",
                        "--max-steps=1000",
                        "--max-eval-samples=100",
                        "--learning-rate=1.0E-5",
                        "--logging-steps=10",
                        "--eval-steps=200",
                        "--gradient-accumulation-steps=1",
                        "--output=adapters",
                        "--save-steps=100",
                        "--max-length=2048",
                        "--gradient-checkpointing=false",
                        "--target-modules=q_proj,v_proj",
                        "--lora-r=8",
                        "--lora-alpha=160.0",
                        "--lora-dropout=0.0");
        assertThat(expand("lr_schedule: {name: cosine_decay, warmup: 100, arguments: [1.0e-5, 1000, 1.0e-7]}\n"))
                .containsExactly(
                        "train",
                        "--lr-scheduler-type=cosine",
                        "--learning-rate=1.0E-5",
                        "--min-learning-rate=1.0E-7",
                        "--warmup-steps=100");
        assertThatThrownBy(() -> expand("lr_schedule: {name: step_decay, arguments: [1, 2, 3]}\n"))
                .hasMessageContaining("only cosine_decay or linear_schedule");
        assertThat(expand("fine_tune_type: full\n")).containsExactly("train", "--method=full");
        assertThatThrownBy(() -> expand("fine_tune_type: loha\n")).hasMessageContaining("only dora, full or lora");
    }

    @Test
    void takesTheArgumentsOfTrl() throws IOException {
        assertThat(expand(example("trl.yaml")))
                .contains("--data=questions.jsonl", "--lora-r=32", "--lora-alpha=16", "--gradient-checkpointing=true");
        assertThat(notes).anyMatch(note -> note.contains("will not happen: push_to_hub"));
    }

    @Test
    void takesThePlainNamesOfPeft() throws IOException {
        assertThat(
                        expand(
                                """
                r: 8
                lora_alpha: 16
                lora_dropout: 0.1
                target_modules: [q_proj]
                bias: none
                task_type: CAUSAL_LM
                peft_type: LORA
                fan_in_fan_out: false
                modules_to_save: null
                init_lora_weights: orthogonal
                use_rslora: true
                inference_mode: false
                """))
                .containsExactly(
                        "train",
                        "--lora-r=8",
                        "--lora-alpha=16",
                        "--lora-dropout=0.1",
                        "--target-modules=q_proj",
                        "--bias=none",
                        "--init-lora-weights=orthogonal",
                        "--use-rslora");
        assertThat(expand("modules_to_save: [lm_head, norm]\nbias: all\nr: 8\n"))
                .containsExactly("train", "--modules-to-save=lm_head,norm", "--bias=all", "--lora-r=8");
    }

    @Test
    void namesAllThatIsUnknownAtOnce() {
        assertThatThrownBy(
                        () -> expand("lora_rnak: 8\nsomething_else: 1\nlr_scheduler_kwargs: {curve: 2}\nstage: dpo\n"))
                .hasMessageContaining(
                        "no options are called \"lora_rnak\" (did you mean lora_rank?), \"something_else\", "
                                + "\"lr_scheduler_kwargs.curve\"")
                .hasMessageContaining("stage cannot be dpo here");
    }

    @Test
    void theCommandLineTakesWhatTheFileTakes() throws IOException {
        assertThat(commandLine(
                        "--bf16",
                        "--bias",
                        "none",
                        "--packing",
                        "True",
                        "--max_length",
                        "64",
                        "--use-dora",
                        "True",
                        "--group-by-length",
                        "false",
                        "--lora_target",
                        "all",
                        "--r=8",
                        "--warmup-steps",
                        "3"))
                .containsExactly(
                        "train",
                        "--bias",
                        "none",
                        "--max-length",
                        "64",
                        "--use-dora",
                        "--target-modules",
                        "all",
                        "--lora-r=8",
                        "--warmup-steps",
                        "3");
        assertThat(notes).anyMatch(note -> note.equals("note: these mean nothing here: --bf16, --packing"));
        assertThatThrownBy(() -> commandLine("--lora-dtype", "bfloat16"))
                .hasMessage("--lora-dtype cannot be bfloat16 here, only auto or float32 or fp32");
        assertThat(commandLine("--ask", "--bf16", "--nonsense"))
                .containsExactly("train", "--ask", "--bf16", "--nonsense");
    }

    private String[] commandLine(String... args) {
        List<String> all = new ArrayList<>(List.of("train"));
        all.addAll(List.of(args));
        String[] ours = Spelling.ours(LoricaCli.commandLine(Terminal.system()), all.toArray(String[]::new));
        return ConfigFile.expand(train().getCommandSpec(), ours, notes::add);
    }

    private static String example(String name) throws IOException {
        try (var in = ConfigFileTest.class.getResourceAsStream("/config/" + name)) {
            return new String(in.readAllBytes(), java.nio.charset.StandardCharsets.UTF_8);
        }
    }

    @ParameterizedTest
    @CsvSource({
        "lora_rnak: 8, (did you mean lora_rank?)",
        "learning_rat: 1, (did you mean learning_rate?)",
        "num_train_epoch: 1, (did you mean num_train_epochs?)",
        "something_else_entirely: 1, no option is called \"something_else_entirely\"",
        "stage: dpo, 'stage cannot be dpo here, only sft'",
        "train_on_prompt: maybe, it must be true or false",
        "model: {a: b}, model must be a value or a list",
        "val_set_size: 500, val_set_size is 500; a share of the data is meant",
        "'datasets: [{path: a, type: oasst}]', a data set of type \"oasst\" is not known",
        "'datasets: [{path: a, shards: 2}]', no option is called \"datasets.shards\"",
        "'model: [', line 1"
    })
    void whatIsNotUnderstoodIsSaid(String line, String message) {
        assertThatThrownBy(() -> expand(line + "\n"))
                .isInstanceOf(LoricaException.class)
                .hasMessageContaining("config.yaml")
                .hasMessageContaining(message)
                .satisfies(e -> assertThat(e.getMessage()).doesNotContain("\n"));
    }

    @Test
    void twoNamesOfOneOptionAreAnError() {
        assertThatThrownBy(() -> expand("epochs: 1\nnum_train_epochs: 2\n"))
                .hasMessageContaining("num_train_epochs sets --epochs, which another key sets too");
        assertThatThrownBy(() -> expand("epochs: 1\nepochs: 2\n")).hasMessageContaining("line 2");
    }

    /** The reader of YAML takes the first for a text of its own, and does not look at the others. */
    @Test
    void aliasesAndFurtherDocumentsAndHugeFilesAreRefusedAtOnce() {
        assertThatThrownBy(() -> expand("epochs: &n 2\nlora_r: *n\n"))
                .hasMessageContaining("line 2: aliases (*n) are not read; write out what is meant");
        assertThatThrownBy(() -> expand("base: &b {epochs: 1}\nother:\n  <<: *b\n"))
                .hasMessageContaining("line 3: aliases (*b) are not read");
        assertThatThrownBy(() -> expand("epochs: 1\n---\nepochs: 2\n"))
                .hasMessageContaining("line 3: a second document begins; only one is meant");
        long begun = System.nanoTime();
        assertThatThrownBy(() -> expand("output: \"" + "a\\n".repeat(4 << 20) + "\"\n"))
                .hasMessageContaining("has more than 64 KiB; a list of options is meant");
        assertThatThrownBy(() -> expand("output: " + "[".repeat(60_000) + "\n")).isInstanceOf(LoricaException.class);
        assertThatThrownBy(() -> expand("output: [" + "&a [".repeat(15_000) + "\n"))
                .isInstanceOf(LoricaException.class);
        assertThat(System.nanoTime() - begun).isLessThan(60_000_000_000L);
    }

    @Test
    void aFileThatIsNotThereIsNamed() {
        Program.run("train", "--config", "none.yaml").failsWith(ExitCode.FAILED, "--config none.yaml does not exist");
    }

    @Test
    void theSavedConfigurationRepeatsTheRunToTheByte() throws IOException {
        Path data = Files.writeString(
                folder.resolve("data.jsonl"),
                """
                {"question": "Who is Mr. Collins?", "answer": "A clergyman."}
                {"question": "Where is Pemberley?", "answer": "In Derbyshire."}
                {"question": "Whom does Jane marry?", "answer": "Mr. Bingley."}
                """);
        Path first = folder.resolve("first");
        Path second = folder.resolve("second");
        Program.run(
                        "train",
                        "-m",
                        Program.model(),
                        "-d",
                        data.toString(),
                        "-o",
                        first.toString(),
                        "--max_steps",
                        "3",
                        "--lora_r=2",
                        "--lora-dropout=0.1",
                        "--target-modules",
                        "q_proj",
                        "v_proj",
                        "--seed",
                        "7",
                        "--lr-scheduler-type=cosine",
                        "--warmup-steps=1",
                        "--batch-size",
                        "2",
                        "--ask",
                        "Who?")
                .succeeds();

        Program.run("train", "--config", first.resolve("train_config.yaml").toString(), "--output", second.toString())
                .succeeds();

        assertThat(second.resolve(Adapter.FILE_NAME)).hasSameBinaryContentAs(first.resolve(Adapter.FILE_NAME));
        assertThat(Files.readString(second.resolve("train_config.yaml")).replace(second.toString(), first.toString()))
                .isEqualTo(Files.readString(first.resolve("train_config.yaml")))
                .contains("lora_r: 2\n", "seed: 7\n", "lr_scheduler_type: cosine\n", "- q_proj\n- v_proj\n");
    }

    @Test
    void soDoesThatOfARunWithEveryMethod() throws IOException {
        Path data = Files.writeString(
                folder.resolve("data.jsonl"),
                """
                {"question": "Who is Mr. Collins?", "answer": "A clergyman."}
                {"question": "Where is Pemberley?", "answer": "In Derbyshire, and it is a very large house."}
                {"question": "Whom does Jane marry?", "answer": "Mr. Bingley."}
                """);
        Path first = folder.resolve("first");
        Path second = folder.resolve("second");
        Program run = Program.run(
                        "train",
                        "-m",
                        Program.model(),
                        "-d",
                        data.toString(),
                        "-o",
                        first.toString(),
                        "--max-steps",
                        "2",
                        "--lora-r=2",
                        "--use-dora",
                        "--use-rslora",
                        "--rank-pattern",
                        "v_proj=3,blk.1.ffn_up=4",
                        "--alpha-pattern",
                        "v_proj=7.5",
                        "--layers-to-transform=0-1,5",
                        "--optim=adamw_8bit",
                        "--loraplus-lr-ratio=4",
                        "--neftune-noise-alpha=5",
                        "--group-by-length",
                        "--batch-size=2")
                .succeeds();
        assertThat(run.out())
                .contains("llama.cpp has no DoRA", "lorica merge --model")
                .doesNotContain("llama-cli");

        Program.run("train", "--config", first.resolve("train_config.yaml").toString(), "--output", second.toString())
                .succeeds();

        assertThat(second.resolve(Adapter.FILE_NAME)).hasSameBinaryContentAs(first.resolve(Adapter.FILE_NAME));
        assertThat(Files.readString(first.resolve("train_config.yaml")))
                .contains("use_dora: true\n", "v_proj: 3\n", "optim: adamw_8bit\n", "group_by_length: true\n");
        JsonNode peft = new ObjectMapper()
                .readTree(first.resolve(Adapter.PEFT_CONFIG_NAME).toFile());
        assertThat(peft.get("use_dora").asBoolean()).isTrue();
        assertThat(peft.get("rank_pattern")
                        .get("model.layers.5.self_attn.v_proj")
                        .asInt())
                .isEqualTo(3);
        assertThat(peft.get("target_modules").toString()).contains("layers.5.").doesNotContain("layers.4.");

        Program.run(
                        "export",
                        "--model",
                        Program.model(),
                        "--adapter",
                        first.toString(),
                        "--format",
                        "gguf",
                        "--output",
                        folder.resolve("exported").toString())
                .failsWith(ExitCode.FAILED, "cannot be a LoRA file for llama.cpp, which has no DoRA", "lorica merge");
        JsonNode info =
                Program.run("info", first.toString(), "--json").succeeds().json();
        assertThat(info.get("type").asText()).isEqualTo("dora");
        assertThat(info.get("pairs").asInt()).isEqualTo(3 * 7);
    }

    @ParameterizedTest
    @CsvSource({
        "--rank-pattern=w_proj=2, rank pattern \"w_proj\" fits none of the modules that are adapted",
        "--layers-to-transform=0-99, names layer 8; this model has layers 0 to 7",
        "--layers-to-transform=some, '--layers-to-transform cannot be \"some\"; layers are meant, as 0-7,12'",
        "--optim=sgd, 'there is no optimizer \"sgd\"; there are adamw and adamw_8bit'",
        "--learning-rate=0, learning rate is 0.0; it must be more than 0",
        "--loraplus-lr-ratio=0, loraplus lr ratio is 0.0; it must be more than 0"
    })
    void whatWouldHaveNoEffectIsAnError(String option, String message) throws IOException {
        Path data = Files.writeString(folder.resolve("data.jsonl"), "{\"question\": \"Who?\", \"answer\": \"He.\"}\n");
        Program.run(
                        "train",
                        "-m",
                        Program.model(),
                        "-d",
                        data.toString(),
                        "-o",
                        folder.resolve("out").toString(),
                        "--max-steps=1",
                        option)
                .failsWith(ExitCode.FAILED, message);
    }

    @Test
    void aLossThatIsNoNumberIsNeverShownAsOne() throws IOException {
        Path data = Files.writeString(folder.resolve("data.jsonl"), "{\"question\": \"Who?\", \"answer\": \"He.\"}\n");
        Path output = folder.resolve("out");
        Program run = Program.run(
                "train",
                "-m",
                Program.model(),
                "-d",
                data.toString(),
                "-o",
                output.toString(),
                "--epochs=9",
                "--logging-steps=1",
                "--learning-rate=1e38",
                "--max-grad-norm=0");
        assertThat(run.exitCode()).isEqualTo(ExitCode.FAILED);
        assertThat(run.err())
                .contains(
                        "error: training step 2 of 9, example 1 (\"He.\"): the loss is not finite",
                        "learning rate (it is ");
        List<String> log = Files.readAllLines(output.resolve("train_log.jsonl"));
        assertThat(log).isNotEmpty().noneMatch(line -> line.contains("NaN") || line.contains("\"loss\":0.0"));
        assertThat(output.resolve(Adapter.FILE_NAME)).doesNotExist();
    }

    @Test
    void anAdapterThatStillChangesNothingIsSaid() throws IOException {
        Path data = Files.writeString(folder.resolve("data.jsonl"), "{\"question\": \"Who?\", \"answer\": \"He.\"}\n");
        Program run = Program.run(
                        "train",
                        "-m",
                        Program.model(),
                        "-d",
                        data.toString(),
                        "-o",
                        folder.resolve("out").toString(),
                        "--max-steps=1",
                        "--warmup-steps=1")
                .succeeds();
        assertThat(run.err()).contains("warning: the adapter changes nothing: every B is still zero");
    }

    /** So that a name in a file can only mean one thing. */
    @Test
    void everyOptionHasALongName() {
        for (OptionSpec option : train().getCommandSpec().options()) {
            assertThat(option.longestName()).startsWith("--");
        }
    }

    private String[] expand(String yaml, String... more) throws IOException {
        Path file = Files.writeString(folder.resolve("config.yaml"), yaml);
        List<String> args = new ArrayList<>(List.of("train", "--config", file.toString()));
        args.addAll(List.of(more));
        List<String> all = new ArrayList<>(
                List.of(ConfigFile.expand(train().getCommandSpec(), args.toArray(String[]::new), notes::add)));
        all.removeAll(List.of("--config", file.toString()));
        return all.toArray(String[]::new);
    }

    private static CommandLine train() {
        return LoricaCli.commandLine(Terminal.system()).getSubcommands().get("train");
    }
}
