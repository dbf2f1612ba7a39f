package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class AdapterNameTest {
    @TempDir
    static Path folder;

    @BeforeAll
    static void makeAdapters() {
        try (Model model = Model.load(Path.of(Program.model()))) {
            for (int seed = 1; seed <= 2; seed++) {
                try (Adapter adapter = Adapter.create(
                        model, LoraConfig.builder().rank(2).seed(seed).build())) {
                    for (int i = 1; i < adapter.tensors().size(); i += 2) {
                        float[] values = adapter.values(i);
                        Arrays.fill(values, 0.02f * seed);
                        adapter.setValues(i, values);
                    }
                    adapter.save(folder.resolve("adapter-" + seed));
                }
            }
        }
    }

    @ParameterizedTest
    @CsvSource({
        "my-adapter, my-adapter, 1",
        "a:0.5, a, 0.5",
        "a/b.gguf:-2, a/b.gguf, -2",
        "a:.25, a, .25",
        "a:1e-1, a, 0.1",
        "a:b, a:b, 1",
        "hf:owner/name, hf:owner/name, 1",
        "hf:owner/name:0.5, hf:owner/name, 0.5",
        ":0.5, :0.5, 1"
    })
    void aNumberBehindTheLastColonIsItsScale(String text, String path, double scale) {
        assertThat(AdapterName.of(text)).isEqualTo(new AdapterName(Path.of(path), scale));
    }

    @Test
    void aFileThatIsReallyCalledThatIsMeant() throws Exception {
        Path file = Files.createFile(folder.resolve("v:2"));

        assertThat(AdapterName.of(file.toString())).isEqualTo(new AdapterName(file, 1));
    }

    @Test
    void aNameThatIsNoneOnTheHubIsRefusedInOneLine() {
        Program.run("generate", "--model", "hf:only-an-owner", "--prompt", "x")
                .failsWith(ExitCode.FAILED, "\"hf:only-an-owner\" is not of the form hf:OWNER/REPO[@REVISION][:FILE]");
        Program.run("generate", "--model", Program.model(), "--adapter", "hf:owner/../x", "--prompt", "x")
                .failsWith(ExitCode.FAILED, "is not of the form hf:");
        Program.run("convert", "hf:", folder.resolve("x.gguf").toString())
                .failsWith(ExitCode.FAILED, "is not of the form hf:");
    }

    @Test
    void generateAppliesTheSumOfAllThatAreNamed() {
        String one = folder.resolve("adapter-1").toString();
        String other = folder.resolve("adapter-2").toString();

        String base = generate();
        String withOne = generate("--adapter", one);
        String withBoth = generate("--adapter", one, "--adapter", other + ":0.5");

        assertThat(List.of(base, withOne, withBoth)).doesNotHaveDuplicates();
        assertThat(generate("--adapter", one, "--adapter", other + ":0")).isEqualTo(withOne);
        assertThat(generate("--adapter", one + ":0")).isEqualTo(base);
        // merged, the sum says the same
        Path merged = folder.resolve("merged.gguf");
        Program.run(
                        "merge",
                        "--model",
                        Program.model(),
                        "--adapter",
                        one,
                        "--adapter",
                        other + ":0.5",
                        "--output",
                        merged.toString(),
                        "--type",
                        "F32")
                .succeeds();
        assertThat(Program.run(
                                "generate",
                                "--model",
                                merged.toString(),
                                "--prompt",
                                "It is",
                                "--temperature",
                                "0",
                                "-n",
                                "12",
                                "--precision",
                                "f32")
                        .succeeds()
                        .out())
                .isEqualTo(withBoth);
    }

    private static String generate(String... more) {
        List<String> arguments = new ArrayList<>(List.of(
                "generate",
                "--model",
                Program.model(),
                "--prompt",
                "It is",
                "--temperature",
                "0",
                "-n",
                "12",
                "--precision",
                "f32"));
        arguments.addAll(List.of(more));
        return Program.run(arguments.toArray(String[]::new)).succeeds().out();
    }
}
