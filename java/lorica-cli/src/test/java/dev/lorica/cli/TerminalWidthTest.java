package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Commands on a terminal of eighty columns, which {@code script} plays. */
class TerminalWidthTest {
    private static final int COLUMNS = 80;

    @TempDir
    Path folder;

    @Test
    void noLineOfACommandIsLongerThanTheTerminal() throws Exception {
        assumeTrue(Files.isExecutable(Path.of("/usr/bin/script")), "script, of util-linux, is not there");
        Path data = Files.writeString(
                folder.resolve("data.json"),
                "[{\"question\": \"Who is Mr. Collins?\", \"answer\": \"A clergyman, and the heir of Longbourn.\"},"
                        + "{\"question\": \"Where is Pemberley?\", \"answer\": \"In Derbyshire.\"}]");
        Path text =
                Files.writeString(folder.resolve("text.txt"), "It is a truth universally acknowledged.\n".repeat(80));
        String model = Program.model();
        String adapter = folder.resolve("adapter").toString();
        List<String[]> commands = List.of(
                command("train -m MODEL -d DATA -o ADAPTER --eval-data DATA --max-steps 3 --logging-steps 1 --lora-r 2"
                        + " --target-modules q_proj --learning-rate 1e-2 --neftune-noise-alpha 5"),
                command("train -m MODEL -d DATA -o ADAPTER --max-steps 1"),
                command("eval -m MODEL -a ADAPTER --data DATA --max-length 64"),
                command("eval -m MODEL --text TEXT --ctx-size 64"),
                command("quantize MODEL OUT/q8.gguf --type Q3_K_M"),
                command("merge -m MODEL -a ADAPTER -o OUT/merged.gguf"),
                command("convert FAMILY OUT/converted.gguf"),
                command("export -m MODEL -a ADAPTER -o OUT/peft"),
                command("info MODEL"),
                command("info ADAPTER"),
                command("plan -m MODEL --max-length 128"),
                command("data -m MODEL --data DATA"),
                command("report ADAPTER"),
                command("doctor"),
                command("train -m MODEL -d DATA -o OUT/other --lora-rr 3"),
                command("merge -m no.gguf -a nothing -o OUT/x.gguf"),
                command("plan -m hf:a/b --max-length 0"));
        Path file = Files.write(
                folder.resolve("commands"),
                commands.stream()
                        .map(command -> String.join("\t", command)
                                .replace("MODEL", model)
                                .replace("ADAPTER", adapter)
                                .replace("DATA", data.toString())
                                .replace("TEXT", text.toString())
                                .replace("OUT", folder.toString())
                                .replace(
                                        "FAMILY",
                                        Program.repository("java/lorica-core/src/test/resources/convert/qwen2")))
                        .toList());

        String output = onATerminal(CommandLines.class.getName(), file.toString());

        for (String name : List.of(
                "train",
                "eval",
                "quantize",
                "merge",
                "convert",
                "export",
                "info",
                "plan",
                "data",
                "report",
                "doctor")) {
            assertThat(output).as(name).contains(name + " ended with 0");
        }
        assertThat(output).contains("train ended with 1", "train ended with 2", "merge ended with 1");
        assertThat(output.split("[\r\n]+"))
                .allSatisfy(line -> assertThat(line.length()).as(line).isLessThanOrEqualTo(COLUMNS));
    }

    private static String[] command(String words) {
        return words.split(" ");
    }

    /** What a person sees, without colours. */
    private String onATerminal(String mainClass, String argument) throws Exception {
        List<String> java = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")),
                mainClass,
                argument));
        Path runner = Files.writeString(
                folder.resolve("run.sh"), "stty cols " + COLUMNS + " rows 24\nexec " + String.join(" ", java) + "\n");
        ProcessBuilder builder = new ProcessBuilder("script", "-qec", "bash " + runner, "/dev/null")
                .redirectErrorStream(true)
                .redirectInput(ProcessBuilder.Redirect.from(Path.of("/dev/null").toFile()));
        builder.environment().putAll(Map.of("TERM", "xterm", "HF_HUB_OFFLINE", "1"));
        Process process = builder.start();
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertThat(process.waitFor()).as(output).isZero();
        return output.replaceAll("\u001b\\[[0-9;?]*[A-Za-z]", "");
    }
}
