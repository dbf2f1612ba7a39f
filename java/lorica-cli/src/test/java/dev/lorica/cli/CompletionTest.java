package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class CompletionTest {
    @TempDir
    Path folder;

    @ParameterizedTest
    @CsvSource({"lorica tr, train", "lorica train --targ, --target-modules", "lorica com, completion"})
    void bashCompletesCommandsAndOptions(String typed, String completed) throws Exception {
        Path script = script("bash");

        String reply = shell(
                "bash",
                "-c",
                "source \"$1\"; COMP_LINE=$2; COMP_POINT=${#2}; read -ra COMP_WORDS <<<\"$2\"; "
                        + "COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _complete_lorica; printf '%s\\n' \"${COMPREPLY[@]}\"",
                "bash",
                script.toString(),
                typed);

        assertThat(reply.lines().map(String::strip)).contains(completed);
    }

    @Test
    void zshReadsItsFunction() throws Exception {
        assumeTrue(has("zsh"), "zsh is not installed");

        assertThat(shell("zsh", "-n", script("zsh").toString())).isEmpty();
        assertThat(Files.readString(script("zsh")))
                .startsWith("#compdef lorica\n")
                .contains("'train:Train", "--target-modules=[", ":command:->command");
    }

    @Test
    void fishCompletesCommandsAndOptions() throws Exception {
        assumeTrue(has("fish"), "fish is not installed");

        assertThat(shell(
                        "fish",
                        "-c",
                        "source $argv[1]; complete -C 'lorica trai'",
                        script("fish").toString()))
                .startsWith("train\t");
        assertThat(shell(
                        "fish",
                        "-c",
                        "source $argv[1]; complete -C 'lorica train --lora-al'",
                        script("fish").toString()))
                .startsWith("--lora-alpha");
    }

    @Test
    void otherShellsAreNamedAsWhatIsNotThere() {
        Program.run("completion", "tcsh").failsWith(ExitCode.FAILED, "bash, zsh and fish, not for \"tcsh\"");
    }

    @Test
    void everyCommandHasAManualPageThatGroffTakes() throws Exception {
        Program.run("man-pages", folder.resolve("man1").toString()).succeeds();

        try (Stream<Path> pages = Files.list(folder.resolve("man1"))) {
            List<Path> all = pages.toList();
            assertThat(all)
                    .extracting(page -> page.getFileName().toString())
                    .contains("lorica.1", "lorica-train.1", "lorica-generate.1")
                    .doesNotContain("lorica-man-pages.1");
            if (has("groff")) {
                for (Path page : all) {
                    assertThat(shell("groff", "-man", "-Tutf8", "-ww", "-z", page.toString()))
                            .isEmpty();
                }
            }
        }
        assertThat(Files.readString(folder.resolve("man1/lorica-train.1")))
                .contains(
                        ".SH NAME\nlorica\\-train \\\\- ".replace("\\\\-", "\\-"),
                        "\\-\\-target\\-modules",
                        ".SH EXAMPLES");
    }

    private Path script(String shell) throws IOException {
        String script = Program.run("completion", shell).succeeds().out();
        return Files.writeString(folder.resolve("completion." + shell), script);
    }

    private static boolean has(String program) {
        return Arrays.stream(System.getenv("PATH").split(File.pathSeparator))
                .anyMatch(folder -> Files.isExecutable(Path.of(folder, program)));
    }

    private static String shell(String... command) throws Exception {
        Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
        String said = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertThat(process.waitFor(5, TimeUnit.MINUTES)).isTrue();
        return said;
    }
}
