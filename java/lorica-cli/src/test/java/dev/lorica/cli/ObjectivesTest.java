package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Preferences, from the command line. */
class ObjectivesTest {
    @TempDir
    Path folder;

    private Path pairs(String name, int from, int to) {
        List<String> lines = new ArrayList<>();
        for (int i = from; i < to; i++) {
            lines.add("{\"prompt\": \"Who is number " + i + "?\", \"chosen\": \"He is " + i
                    + " and quite kind.\", \"rejected\": \"I cannot say who that may be, number " + i + ".\"}");
        }
        return write(name, lines);
    }

    private Path write(String name, List<String> lines) {
        try {
            return Files.write(folder.resolve(name), lines);
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    private static Program train(Path data, Path output, String... more) {
        List<String> args = new ArrayList<>(List.of(
                "train",
                "--model",
                Program.model(),
                "--data",
                data.toString(),
                "--output",
                output.toString(),
                "--lora-r",
                "4",
                "--batch-size",
                "2",
                "--logging-steps",
                "1"));
        args.addAll(List.of(more));
        return Program.run(args.toArray(String[]::new));
    }

    private static List<JsonNode> log(Path output) throws IOException {
        List<JsonNode> records = new ArrayList<>();
        for (String line : Files.readAllLines(output.resolve("train_log.jsonl"))) {
            records.add(new ObjectMapper().readTree(line));
        }
        return records;
    }

    @Test
    void dpoMovesTheMarginsOfPairsThatItDoesNotTrainOn() throws IOException {
        Path output = folder.resolve("adapter");
        Program trained = train(
                        pairs("train.jsonl", 0, 24),
                        output,
                        "--objective",
                        "dpo",
                        "--eval-data",
                        pairs("held.jsonl", 24, 32).toString(),
                        "--max-steps",
                        "12",
                        "--learning-rate",
                        "1e-3")
                .succeeds();
        assertThat(trained.out())
                .contains("objective dpo (beta 0.1, loss_type sigmoid)")
                .contains(
                        "The better side of a pair", "⟦He is 0 and quite kind.", "The worse one", "⟦I cannot say who");
        assertThat(trained.err()).contains("loss 0.6931, margin 0.0000", "step  4/12", "margin", "accuracy 100");

        JsonNode last = log(output).get(log(output).size() - 1);
        assertThat(last.get("eval_loss").asDouble()).isLessThan(0.5);
        assertThat(last.get("eval_rewards/margins").asDouble()).isGreaterThan(0.5);
        assertThat(last.get("eval_rewards/accuracies").asDouble()).isEqualTo(1);
        assertThat(last.has("eval_perplexity")).isFalse();
        assertThat(log(output).get(0).get("logps/chosen").asDouble()).isNegative();
        JsonNode metadata = new ObjectMapper()
                .readTree(output.resolve("lorica_adapter.json").toFile());
        assertThat(metadata.get("training").get("objective").toString())
                .isEqualTo("{\"name\":\"dpo\",\"beta\":0.1,\"loss_type\":\"sigmoid\"}");
    }

    @Test
    void aRunThatWasStoppedEndsInTheSameBytes() throws IOException {
        Path data = pairs("train.jsonl", 0, 12);
        List<String> options = List.of("--objective", "dpo", "--max-steps", "6", "--lr-scheduler-type", "constant");
        List<String> saving = new ArrayList<>(options);
        saving.addAll(List.of("--save-steps", "3", "--save-strategy", "steps"));
        Path whole = folder.resolve("whole");
        train(data, whole, options.toArray(String[]::new)).succeeds();
        Path parts = folder.resolve("parts");
        List<String> first = new ArrayList<>(saving);
        first.set(3, "3");
        train(data, parts, first.toArray(String[]::new)).succeeds();
        saving.add("--resume");
        train(data, parts, saving.toArray(String[]::new)).succeeds();
        assertThat(parts.resolve("adapter.gguf")).hasSameBinaryContentAs(whole.resolve("adapter.gguf"));

        List<String> other = new ArrayList<>(saving);
        other.addAll(List.of("--beta", "0.2"));
        train(data, parts, other.toArray(String[]::new))
                .failsWith(ExitCode.FAILED, "objective was dpo (beta 0.1, loss_type sigmoid) and is dpo (beta 0.2");
    }

    @Test
    void aRewardModelPrefersTheBetterOfPairsThatItDoesNotTrainOnAndJudgesAnswersOfGrpo() throws IOException {
        Path judge = folder.resolve("judge");
        Program trained = train(
                        pairs("train.jsonl", 0, 24),
                        judge,
                        "--objective=reward",
                        "--eval-data=" + pairs("held.jsonl", 24, 32),
                        "--max-steps=12",
                        "--learning-rate=1e-3")
                .succeeds();
        assertThat(trained.out()).contains("objective reward", "--reward-adapter " + judge);
        JsonNode last = log(judge).get(log(judge).size() - 1);
        assertThat(last.get("eval_accuracy").asDouble()).isEqualTo(1);
        assertThat(last.get("eval_margin").asDouble()).isGreaterThan(0.5);
        assertThat(last.get("eval_loss").asDouble()).isLessThan(0.5);

        Path policy = folder.resolve("policy");
        train(
                        write("prompts.jsonl", List.of("{\"prompt\": \"Who is number 3?\"}")),
                        policy,
                        "--objective=grpo",
                        "--reward-adapter=" + judge,
                        "--num-generations=4",
                        "--max-completion-length=8",
                        "--max-steps=2")
                .succeeds();
        assertThat(log(policy).get(0).get("rewards/reward_model/mean").asDouble())
                .isNotZero();
        Program.run("classify", "--model", Program.model(), "--adapter", judge.toString(), "--text", "He is kind.")
                .failsWith(ExitCode.FAILED, "is a reward model, which judges answers to prompts");
        Path none = folder.resolve("none");
        train(pairs("pairs.jsonl", 0, 2), none, "--objective=reward", "--ask=Who?")
                .failsWith(ExitCode.FAILED, "a reward model judges answers");
        train(pairs("pairs.jsonl", 0, 2), none, "--center-rewards-coefficient=0.1")
                .failsWith(ExitCode.FAILED, "--center-rewards-coefficient has no meaning with --objective sft");
        train(write("prompts.jsonl", List.of("{\"prompt\": \"Who?\"}")), none, "--objective=grpo")
                .failsWith(ExitCode.FAILED, "--reward-command or --reward-adapter");
        assertThat(none).doesNotExist();
    }

    @Test
    void anAdapterThatIsTrainedOnIsItsOwnReference() throws IOException {
        Path data = pairs("train.jsonl", 0, 8);
        Path first = folder.resolve("first");
        train(data, first, "--objective", "dpo", "--max-steps", "4", "--learning-rate", "1e-3")
                .succeeds();
        Path second = folder.resolve("second");
        train(data, second, "--objective", "dpo", "--adapter", first.toString(), "--max-steps", "1")
                .succeeds();
        assertThat(log(second).get(0).get("rewards/margins").asDouble()).isBetween(-1e-3, 1e-3);
    }

    @Test
    void everyObjectiveTrains() throws IOException {
        Path pairs = pairs("train.jsonl", 0, 4);
        Path labelled = write(
                "labelled.jsonl",
                List.of(
                        "{\"prompt\": \"Who?\", \"completion\": \"Mr. Collins.\", \"label\": true}",
                        "{\"prompt\": \"Where?\", \"completion\": \"No idea.\", \"label\": false}"));
        for (String name : List.of("dpo", "orpo", "simpo", "cpo", "kto")) {
            Path output = folder.resolve(name);
            train(name.equals("kto") ? labelled : pairs, output, "--objective", name, "--max-steps", "2")
                    .succeeds();
            assertThat(log(output).get(1).has("rewards/margins")).as(name).isTrue();
        }
    }

    /** With rewards for answers to three prompts by a line of shell, which sees each answer as a line. */
    private Program grpo(Path output, String reward, String... more) {
        Path data = write(
                "prompts.jsonl",
                List.of("{\"prompt\": \"Who?\"}", "{\"prompt\": \"Where?\"}", "{\"prompt\": \"Why?\"}"));
        List<String> options = new ArrayList<>(List.of(
                "--objective", "grpo", "--max-steps", "2", "--num-generations", "4", "--max-completion-length", "8"));
        if (reward != null) {
            options.addAll(List.of("--reward-command", reward));
        }
        options.addAll(List.of(more));
        return train(data, output, options.toArray(String[]::new));
    }

    @Test
    void grpoLearnsFromWhatACommandSaysOfItsAnswers() throws IOException {
        Path output = folder.resolve("grpo");
        String printed = grpo(output, "while read -r line; do echo \"-${#line}\"; done", "--eval-split", "0.3")
                .succeeds()
                .out();
        assertThat(printed)
                .contains("2 prompts")
                .contains("answers are drawn while training")
                .contains("objective grpo (num_generations 4, max_completion_length 8, loss_type dapo")
                .contains("reward -");
        JsonNode step = log(output).get(0);
        assertThat(step.get("rewards/command/mean").asDouble()).isNegative();
        assertThat(step.get("completions/max_length").asDouble()).isBetween(1.0, 8.0);
    }

    @Test
    void aRewardCommandThatPrintsNonsenseLosesNothing() {
        Path output = folder.resolve("grpo");
        Path calls = folder.resolve("calls");
        String once = "cat > /dev/null; test -e '" + calls + "' && { echo so so; exit; }; : > '" + calls
                + "'; printf '1\\n2\\n3\\n4\\n1\\n2\\n3\\n4\\n'";
        Program failed = grpo(output, once);
        assertThat(failed.exitCode()).isEqualTo(ExitCode.FAILED);
        assertThat(failed.err())
                .contains("wrote 1 line for 4 answers; a line with a number is meant for each; "
                        + output.resolve("checkpoint-1") + " holds what was trained before\n")
                .doesNotContain("\tat ");
        grpo(output, "while read -r line; do echo 1; done", "--resume").succeeds();
    }

    /** Answers whose first half counts little. */
    private Path answers(String name, int n) {
        List<String> lines = new ArrayList<>();
        for (int i = 0; i < n; i++) {
            lines.add("{\"prompt\": \"Who is number " + i + "?\", \"completion\": \"He is " + i
                    + " and quite kind.\", \"weight\": " + (i < n / 2 ? 0.25 : 1.5) + "}");
        }
        return write(name, lines);
    }

    @Test
    void aModelLearnsFromATeacherThatIsAskedOnceAndGoesOnToTheSameBytes() throws IOException {
        Path teacher = folder.resolve("tuned");
        train(answers("tune.jsonl", 8), teacher, "--max-steps=8", "--learning-rate=3e-3")
                .succeeds();
        Path data = answers("data.jsonl", 8);
        assertThat(Program.run("data", "--model", Program.model(), "--data", data.toString())
                        .succeeds()
                        .out())
                .contains("tokens count 0.25 to 1.5");
        assertThat(Program.run("data", "--model", Program.model(), "--data", data.toString(), "--weight-field", "none")
                        .succeeds()
                        .out())
                .doesNotContain("tokens count");
        Path cache = folder.resolve("cache");
        List<String> options = new ArrayList<>(List.of(
                "--objective=distill",
                "--teacher-model=" + Program.model(),
                "--teacher-adapter=" + teacher,
                "--teacher-cache=" + cache,
                "--loss-top-k=16",
                "--eval-split=0.25",
                "--lr-scheduler-type=constant",
                "--learning-rate=3e-3",
                "--save-strategy=steps",
                "--save-steps=3"));
        Path whole = folder.resolve("whole");
        String printed =
                train(data, whole, with(options, "--max-steps=6")).succeeds().out();
        assertThat(printed)
                .contains("objective distill (beta 0.5)", "with an adapter (", "top 16, temperature 1.0")
                .contains("weights ", "tokens count 0.25 to 1.5; losses are divided by their sum");
        assertThat(log(whole).get(0).get("mass/teacher").asDouble()).isBetween(0.3, 1.0);
        JsonNode last = log(whole).get(log(whole).size() - 1);
        assertThat(last.get("eval_loss").asDouble())
                .isLessThan(log(whole).get(0).get("loss").asDouble());
        try (Stream<Path> files = Files.list(cache)) {
            assertThat(files).hasSize(2);
        }
        Path parts = folder.resolve("parts");
        train(data, parts, with(options, "--max-steps=3")).succeeds();
        Program resumed =
                train(data, parts, with(options, "--max-steps=6", "--resume")).succeeds();
        assertThat(resumed.err()).doesNotContain("the teacher is asked");
        assertThat(parts.resolve("adapter.gguf")).hasSameBinaryContentAs(whole.resolve("adapter.gguf"));
        try (Stream<Path> files = Files.list(cache)) {
            assertThat(files).hasSize(2);
        }
        Program other = train(data, parts, with(options, "--max-steps=6", "--resume", "--temperature=2"));
        assertThat(other.exitCode()).isEqualTo(ExitCode.FAILED);
        assertThat(other.err()).contains("error: the run cannot go on from ", "teacher was ", " and is ");
        train(data, folder.resolve("none"), "--objective=distill")
                .failsWith(ExitCode.FAILED, "--objective distill needs --teacher-model");
        train(data, folder.resolve("none"), "--teacher-model=" + Program.model())
                .failsWith(ExitCode.FAILED, "--teacher-model has no meaning with --objective sft");
        train(data, folder.resolve("none"), "--objective=kto", "--teacher-cache=x")
                .failsWith(ExitCode.FAILED, "--teacher-cache has no meaning with --objective kto");
        train(data, folder.resolve("dry"), with(options, "--max-steps=6", "--dry-run"))
                .succeeds();
        assertThat(folder.resolve("dry")).doesNotExist();
    }

    @Test
    void settingsOfTrlAreObeyedOrRefusedByName() {
        String common = "model: " + Program.model() + "\noutput: " + folder.resolve("adapter") + "\ndata: "
                + write("prompts.jsonl", List.of("{\"prompt\": \"Who?\"}")) + "\nobjective: grpo\n"
                + "reward_command: \"while read -r line; do echo 1; done\"\nmax_steps: 1\nnum_generations: 2\n"
                + "max_completion_length: 4\n";
        for (String refused : List.of(
                "disable_dropout: true",
                "off_policy_mask_threshold: 0.1",
                "use_bias_correction_kl: false",
                "multi_objective_aggregation: normalize_then_sum",
                "top_entropy_quantile: 0.2",
                "sync_ref_model: true",
                "temperature: 0.7")) {
            Path file = write("refused.yaml", List.of(common + refused));
            Program run = Program.run("train", "--config", file.toString());
            assertThat(run.exitCode()).as(refused).isNotZero();
            assertThat(run.err().replace('-', '_')).contains(refused.substring(0, refused.indexOf(':')));
        }
        Path file = write(
                "taken.yaml",
                List.of(common + "importance_sampling_level: sequence\nnum_iterations: 2\ndelta: 2.5\n"
                        + "temperature: 1.0\nuse_bias_correction_kl: true\ntop_entropy_quantile: 1.0\n"
                        + "entropy_coef: 0.0\ndisable_dropout: false\nloss_type: luspo"));
        assertThat(Program.run("train", "--config", file.toString()).succeeds().out())
                .contains("loss_type luspo", "importance_sampling_level sequence", "delta 2.5");
        // What TRL calls the loss of plain fine-tuning is an objective's form only where it has such.
        Path plain = answers("plain.jsonl", 4);
        train(plain, folder.resolve("plain"), "--loss-type", "nll", "--max-steps", "1")
                .succeeds();
        train(plain, folder.resolve("other"), "--loss-type", "dft")
                .failsWith(ExitCode.FAILED, "--loss-type has no meaning with --objective sft");
    }

    private static String[] with(List<String> options, String... more) {
        return Stream.concat(options.stream(), Stream.of(more)).toArray(String[]::new);
    }

    @Test
    void whatDoesNotGoTogetherIsSaid() {
        Path data = pairs("train.jsonl", 0, 4);
        Path output = folder.resolve("adapter");
        train(data, output).failsWith(ExitCode.FAILED, "--objective dpo");
        train(data, output, "--objective", "dop").failsWith(ExitCode.FAILED, "there are sft, dpo, orpo");
        train(data, output, "--beta", "0.1").failsWith(ExitCode.FAILED, "--beta has no meaning with --objective sft");
        train(data, output, "--objective", "dpo", "--loss-type", "sigmod")
                .failsWith(ExitCode.FAILED, "there are sigmoid, hinge");
        train(data, output, "--objective", "dpo", "--train-on-prompt")
                .failsWith(ExitCode.FAILED, "--train-on-prompt is for --objective sft");
        grpo(output, null).failsWith(ExitCode.FAILED, "--objective grpo needs --reward-command");
        grpo(output, "cat", "--epsilon", "0.1")
                .failsWith(ExitCode.FAILED, "--epsilon has no meaning without --num-iterations 2 or more");
        grpo(output, "cat", "--reward-timeout", "0").failsWith(ExitCode.FAILED, "reward timeout is 0.0");
        grpo(output, "cat", "--precompute-ref-log-probs")
                .failsWith(ExitCode.FAILED, "--precompute-ref-log-probs has no meaning with --objective grpo");
        grpo(output, "cat", "--temperature", "0.7")
                .failsWith(ExitCode.FAILED, "--temperature has no meaning with --objective grpo");
        grpo(output, "cat", "--importance-sampling-level", "sequence")
                .failsWith(ExitCode.FAILED, "--importance-sampling-level has no meaning without --num-iterations 2");
        grpo(output, "cat", "--loss-type", "vespo").failsWith(ExitCode.FAILED, "there are grpo, bnpo, dr_grpo, dapo");
        train(data, output, "--reward-command", "cat")
                .failsWith(ExitCode.FAILED, "--reward-command has no meaning with --objective sft");
        train(data, output, "--objective", "kto").failsWith(ExitCode.FAILED, "no field \"label\"");
    }
}
