package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
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
    /** Only the command that is called is made, so it has to be found by its name. */
    @Test
    void everyCommandIsMadeByItsName() {
        Terminal terminal = Terminal.system();
        LoricaCli.commands().forEach((name, made) -> assertThat(new CommandLine(made.apply(terminal)).getCommandName())
                .isEqualTo(name));
        assertThat(Program.run("info", "--help").succeeds().out()).contains("Usage: lorica info");
        assertThat(Program.run("completion", "bash").succeeds().out()).contains("generate", "quantize");
        assertThat(Program.run("inf").failsWith(ExitCode.USAGE, "inf").err()).contains("info");
        assertThat(Program.run("--version").succeeds().out()).startsWith("lorica ");
    }

    @Test
    void showsHelpWhenNoCommandIsGiven() {
        Program program = Program.run();

        assertThat(program.exitCode()).isEqualTo(ExitCode.USAGE);
        assertThat(program.err()).contains("train", "generate", "info", "tokenize");
        assertThat(program.out()).isEmpty();
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "train",
                "sweep",
                "plan",
                "data",
                "generate",
                "chat",
                "eval",
                "export",
                "merge",
                "quantize",
                "add-tokens",
                "convert",
                "info",
                "tokenize",
                "doctor",
                "completion",
                "man-pages"
            })
    void everyCommandHasHelpWithExamples(String command) {
        Program program = Program.run(command, "--help").succeeds();

        assertThat(program.out()).contains("Usage: lorica " + command, "--json");
        assertThat(program.out()).containsPattern("Examples?:\n  ");
        assertThat(program.out().lines()).allMatch(line -> line.length() <= 80);
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
        Pattern number = Pattern.compile("Default: ([-+]?[0-9]*\\.?[0-9]+(?:e[-+]?[0-9]+)?)$");
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
    void anOptionOfSeveralLettersIsNotAShortOneWithAValue() {
        Program.run("generate", "-m", "a", "-i", "b", "-ngl", "99").failsWith(ExitCode.USAGE, "Unknown option: '-ngl'");
    }

    @Test
    void anOptionThatIsGivenTwiceIsAnErrorInEverySectionOfEveryCommand() {
        int checked = 0;
        for (String name :
                LoricaCli.commandLine(Terminal.system()).getSubcommands().keySet()) {
            CommandLine fresh =
                    LoricaCli.commandLine(Terminal.system()).getSubcommands().get(name);
            for (OptionSpec option : fresh.getCommandSpec().options()) {
                if (option.usageHelp() || option.isMultiValue()) {
                    continue;
                }
                boolean flag = option.arity().max() == 0;
                List<String> arguments = new ArrayList<>(List.of(name));
                for (String spelled :
                        List.of(option.longestName(), option.longestName().replace("-", "_"))) {
                    String written = "--" + spelled.substring(2);
                    arguments.add(flag ? written : written + "=" + (option.type() == String.class ? "auto" : "1"));
                }
                Program.run(arguments.toArray(String[]::new))
                        .failsWith(ExitCode.USAGE, option.longestName() + " is given twice");
                checked++;
            }
        }
        assertThat(checked).isGreaterThan(150);
        Program.run("train", "--lora-alpha", "64", "--target-modules", "q_proj", "--lora-r", "4", "--lora_rank", "8")
                .failsWith(ExitCode.USAGE, "--lora-r is given twice");
        Program.run("train", "-m", "a", "--model_name_or_path", "b")
                .failsWith(ExitCode.USAGE, "--model is given twice");
        Program.run("generate", "-m", "a", "-i", "A", "-i", "B")
                .failsWith(ExitCode.USAGE, "--instruction is given twice");
        Program.run(
                        "train",
                        "-m",
                        "a",
                        "-d",
                        "d",
                        "-o",
                        "o",
                        "--rank-pattern",
                        "q_proj=4,v_proj=2",
                        "--rank-pattern=q_proj=8")
                .failsWith(ExitCode.USAGE, "--rank-pattern gives \"q_proj\" twice");
    }

    @Test
    void aListInTwoPartsLeavesTheRestOfItsSectionAlone() {
        CommandLine program = LoricaCli.commandLine(Terminal.system());
        program.parseArgs(
                "train",
                "-m=a",
                "-d=b",
                "-o=c",
                "--lora-alpha=64",
                "--target-modules=q_proj",
                "--lora-r=4",
                "--target-modules=v_proj",
                "--save-steps=7",
                "--report-to=none",
                "--report-to=tensorboard",
                "--ask=x",
                "--ask=y");
        CommandLine train = program.getSubcommands().get("train");
        assertThat((Object) train.getCommandSpec().findOption("--lora-alpha").getValue())
                .isEqualTo(64.0);
        assertThat((Object) train.getCommandSpec().findOption("--lora-r").getValue())
                .isEqualTo(4);
        assertThat((Object)
                        train.getCommandSpec().findOption("--target-modules").getValue())
                .isEqualTo(List.of("q_proj", "v_proj"));
        assertThat((Object) train.getCommandSpec().findOption("--save-steps").getValue())
                .isEqualTo(7);
        CommandLine generate = program.getSubcommands().get("generate");
        program.parseArgs("generate", "-m=a", "-p=b", "--temperature=0", "--stop=x", "--top-k=3", "--stop=y");
        assertThat((Object)
                        generate.getCommandSpec().findOption("--temperature").getValue())
                .isEqualTo(0.0);
        assertThat((Object) generate.getCommandSpec().findOption("--top-k").getValue())
                .isEqualTo(3);
        assertThat((Object) generate.getCommandSpec().findOption("--stop").getValue())
                .isEqualTo(List.of("x", "y"));
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            value = {
                "train; missing: --model=FILE, --data=FILE[:WEIGHT], --output=DIR",
                "quantize; missing: INPUT",
                "quantize a; missing: OUTPUT",
                "add-tokens a b; missing: --tokens=FILE",
                "quantize a b c; what is 'c' meant to be?",
                "train --lora-r; --lora-r needs a value: N",
                "train --lora-r --model; --lora-r needs a value: N",
                "train --lora-r many; '--lora-r' 'many' is not a whole number",
                "train --lora-r 99999999999; '--lora-r' '99999999999' is not a whole number",
                "train --learning-rate fast; '--learning-rate' 'fast' is not a number",
                "train --rank-pattern q; '--rank-pattern' 'q': NAME=N is meant",
                "train --rank-pattern q=x; '--rank-pattern'",
                "generate --temperature; --temperature needs a value: X",
                "tokenize; missing: FILE.gguf",
                "train --use-dora=maybe; '--use-dora'"
            })
    void nothingOfTheParserReachesAUser(String line, String message) {
        Program program = Program.run(line.split(" ")).failsWith(ExitCode.USAGE, message);
        assertThat(program.err())
                .doesNotContain("picocli", "java.", "Exception", "arg[", "ParameterException", "index 0", "for option")
                .doesNotContain("Expected parameter", "should be specified");
    }

    @Test
    void refusesUnknownCommandsAndSaysWhatIsMeant() {
        Program.run("trainn").failsWith(ExitCode.USAGE, "'trainn'", "Did you mean: lorica train");
    }

    @Test
    void anUnknownCommandIsToBlameForWhatStandsBehindIt() {
        Program.run("generat", "-i", "Who?")
                .failsWith(ExitCode.USAGE, "there is no command 'generat'", "Did you mean: lorica generate");
        Program.run("help", "trainn").failsWith(ExitCode.USAGE, "there is no command 'trainn'");
    }

    @Test
    void helpIsACommandToo() {
        assertThat(Program.run("help").succeeds().out())
                .isEqualTo(Program.run("--help").succeeds().out());
        assertThat(Program.run("help", "train").succeeds().out())
                .isEqualTo(Program.run("train", "--help").succeeds().out());
    }

    @Test
    void aTextThatBeginsWithAnAtSignIsAText(@TempDir Path folder) throws IOException {
        Path file = Files.writeString(folder.resolve("words"), "--temperature 7");
        assertThat(Program.run("tokenize", Program.model(), "--text", "@" + file, "--json")
                        .succeeds()
                        .json())
                .isEqualTo(Program.runWithInput("@" + file, "tokenize", Program.model(), "--json")
                        .succeeds()
                        .json());
        assertThat(Program.run("tokenize", Program.model(), "--text", "@@home", "--json")
                        .succeeds()
                        .json())
                .isEqualTo(Program.runWithInput("@@home", "tokenize", Program.model(), "--json")
                        .succeeds()
                        .json());
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            value = {
                "info ''; a name of a file or folder is missing",
                "info https://example.org/a.gguf; https://example.org/a.gguf is a URL",
                "train -m '' -d a -o b; '--model'",
                "train -m a -d '' -o b; '--data'",
                "train -m a -d b -o ''; '--output'",
                "train -m a -d b.json:0 -o c; '--data' 'b.json:0': the weight behind the name must be more than 0",
                "train -m a -d b.json:NaN -o c; '--data' 'b.json:NaN': the weight",
                "train -m a -d s3://bucket/a.json:0.5 -o b; s3://bucket/a.json:0.5 is a URL",
                "train -m https://huggingface.co/o/r/resolve/main/m-Q4_0.gguf?download=true -d a -o b; hf:o/r:m-Q4_0.gguf on",
                "train -m https://huggingface.co/o/r/blob/v1/sub/m.gguf -d a -o b; or hf:o/r@v1:sub/m.gguf on",
                "train -m m -d https://huggingface.co/datasets/o/set -o b; hf:o/set on Hugging Face's hub"
            })
    void whatCanBeNoNameOfAFileIsSaidToBeNone(String line, String message) {
        String[] words = Arrays.stream(line.split(" "))
                .map(word -> word.equals("''") ? "" : word)
                .toArray(String[]::new);
        Program program = Program.run(words).failsWith(ExitCode.USAGE, message);
        assertThat(program.err()).doesNotContain("Exception", "convert", "class ");
    }

    @Test
    void namesMissingOptions() {
        Program.run("train", "--model", "x.gguf").failsWith(ExitCode.USAGE, "--data=FILE", "--output=DIR");
        Program.run("generate", "--model", "x.gguf")
                .failsWith(ExitCode.USAGE, "nothing is asked", "--instruction TEXT");
        Program.run("generate", "--model", "x.gguf", "-i", "a", "-p", "b")
                .failsWith(ExitCode.USAGE, "--instruction, --prompt and --prompts exclude each other");
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

    @Test
    void anOptionThatWouldChangeNothingIsRefused() {
        Program.run("merge", "-m=a", "-a=b", "-o=c", "--chat-template=chatml")
                .failsWith(ExitCode.FAILED, "--chat-template is for --eval-data");
        assertThat(Program.run("generate", "-m", Program.model(), "-p", "").err())
                .contains("error: --prompt is empty, and this model has no token that begins a text");
    }

    @ParameterizedTest
    @CsvSource({
        "generate -m a -i b -n 0, --max-tokens is 0",
        "train -m a -d b -o d --method prompt-tuning --num-virtual-tokens 0, --num-virtual-tokens is 0"
    })
    void valuesAreNamedAsOptionsAre(String line, String message) {
        Program.run(line.split(" ")).failsWith(ExitCode.FAILED, message);
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
