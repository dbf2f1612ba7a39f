package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;
import picocli.CommandLine;
import picocli.CommandLine.Model.OptionSpec;

class UsageTest {
    @Test
    void showsHelpWhenNoCommandIsGiven() {
        Program program = Program.run();

        assertThat(program.exitCode()).isEqualTo(ExitCode.USAGE);
        assertThat(program.err()).contains("train", "generate", "info", "tokenize");
        assertThat(program.out()).isEmpty();
    }

    @ParameterizedTest
    @ValueSource(strings = {"train", "data", "generate", "eval", "info", "tokenize"})
    void everyCommandHasHelpWithExamples(String command) {
        Program program = Program.run(command, "--help").succeeds();

        assertThat(program.out()).contains("Usage: lorica " + command, "Examples:\n  ", "--json");
        assertThat(program.out().lines()).allMatch(line -> line.length() <= 100);
    }

    @Test
    void helpOfTrainHasTheFlagsThatHuggingFaceUsersKnow() {
        assertThat(Program.run("train", "--help").out())
                .contains(
                        "--lora-r=",
                        "--lora-alpha=",
                        "--lora-dropout=",
                        "--target-modules=",
                        "--epochs=",
                        "--batch-size=")
                .contains(
                        "--gradient-accumulation-steps=", "--learning-rate=", "--lr-scheduler-type=", "--warmup-steps=")
                .contains(
                        "--weight-decay=",
                        "--max-grad-norm=",
                        "--max-length=",
                        "--logging-steps=",
                        "--seed=",
                        "--threads=")
                .contains("--device=", "--prompt-field=", "--response-field=", "--train-on-prompt")
                .contains("Data:", "LoRA:", "Training:", "Device:");
    }

    @Test
    void defaultsWrittenOutInTheHelpAreTheRealOnes() {
        Pattern number = Pattern.compile("Default: ([-+.0-9e]+)$");
        int checked = 0;
        for (CommandLine command :
                LoricaCli.commandLine(Terminal.system()).getSubcommands().values()) {
            for (OptionSpec option : command.getCommandSpec().options()) {
                Matcher literal = number.matcher(String.join(" ", option.description()));
                if (literal.find()) {
                    double real = ((Number) option.initialValue()).doubleValue();
                    assertThat(Double.parseDouble(literal.group(1)))
                            .as(option.longestName())
                            .isEqualTo(real);
                    checked++;
                }
            }
        }
        assertThat(checked).isGreaterThanOrEqualTo(10);
    }

    @Test
    void refusesUnknownOptionsAndSaysWhatIsMeant() {
        Program.run("train", "--modle", "x.gguf")
                .failsWith(ExitCode.USAGE, "Unknown option: '--modle'", "--model", "Try 'lorica train --help'.");
        Program.run("train", "--lora-alpa", "3")
                .failsWith(ExitCode.USAGE, "Unknown option: '--lora-alpa'", "--lora-alpha");
    }

    @Test
    void refusesUnknownCommandsAndSaysWhatIsMeant() {
        Program.run("trainn").failsWith(ExitCode.USAGE, "'trainn'", "Did you mean: lorica train");
    }

    @Test
    void namesMissingOptions() {
        Program.run("train", "--model", "x.gguf").failsWith(ExitCode.USAGE, "--data=FILE", "--output=DIR");
        Program.run("generate", "--model", "x.gguf").failsWith(ExitCode.USAGE, "-i=TEXT | --chat | -p=TEXT");
        Program.run("generate", "--model", "x.gguf", "-i", "a", "-p", "b")
                .failsWith(ExitCode.USAGE, "mutually exclusive");
    }

    @ParameterizedTest
    @CsvSource({
        "--num_train_epochs, --epochs",
        "--num-train-epochs, --epochs",
        "--per_device_train_batch_size, --batch-size",
        "--lora_r, --lora-r",
        "--max_seq_length, --max-length",
        "--warmup_ratio, --warmup-ratio",
        "--lr, --learning-rate"
    })
    void understandsTheSpellingsOfOtherTools(String theirs, String ours) {
        Program.run("train", theirs, "many").failsWith(ExitCode.USAGE, "'" + ours + "'", "'many' is not a");
        Program.run("train", theirs + "=many").failsWith(ExitCode.USAGE, "'" + ours + "'", "'many' is not a");
    }

    @ParameterizedTest
    @CsvSource({
        "--epochs, 0, epochs is 0.0",
        "--lora-r, -3, rank is -3",
        "--lora-dropout, 2, dropout is 2.0",
        "--max-length, 1, max length is 1",
        "--adapter-format, gguff, --adapter-format",
        "--eval-data, none.csv, none.csv does not exist",
        "--data, empty.jsonl, empty.jsonl is empty",
        "--data, columns.csv, no known pair of fields"
    })
    void trainSaysWhatIsWrongWithoutTheModel(String option, String value, String meant, @TempDir Path folder)
            throws IOException {
        Path data = Files.writeString(folder.resolve("data.jsonl"), "{\"question\": \"a\", \"answer\": \"b\"}\n");
        Files.writeString(folder.resolve("empty.jsonl"), "");
        Files.writeString(folder.resolve("columns.csv"), "x,y\n1,2\n");
        String there = value.contains(".") ? folder.resolve(value).toString() : value;
        Path output = folder.resolve("adapter");

        Program.run(
                        "train",
                        "--model",
                        "no-model.gguf",
                        "--data",
                        data.toString(),
                        "--output",
                        output.toString(),
                        option,
                        there)
                .failsWith(ExitCode.FAILED, meant);
        assertThat(output).doesNotExist();
    }

    @Test
    void leavesValuesThatLookLikeOptionsAlone() {
        CommandLine program = LoricaCli.commandLine(Terminal.system());

        assertThat(Spelling.ours(
                        program, new String[] {"generate", "--prompt=--lora_r is an option", "--stop", "--not_ours"}))
                .containsExactly("generate", "--prompt=--lora_r is an option", "--stop", "--not_ours");
    }
}
