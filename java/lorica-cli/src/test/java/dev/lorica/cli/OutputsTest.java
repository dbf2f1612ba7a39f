package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;

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
import org.junit.jupiter.params.provider.ValueSource;

/** No command replaces what it reads, or another file without being told to. */
class OutputsTest {
    @TempDir
    Path folder;

    @ParameterizedTest
    @ValueSource(strings = {"m.gguf", "link.gguf", "hard.gguf", "linked/m.gguf", "./linked/./m.gguf"})
    void noNameOfTheSourceIsWrittenTo(String output) throws IOException {
        Path model = Files.copy(Path.of(Program.model()), folder.resolve("m.gguf"));
        Files.createSymbolicLink(folder.resolve("link.gguf"), model);
        Files.createLink(folder.resolve("hard.gguf"), model);
        Files.createSymbolicLink(folder.resolve("linked"), folder);
        Path adapter = adapter();
        String there = folder.resolve(output).toString();

        for (boolean overwrite : new boolean[] {false, true}) {
            run(overwrite, "quantize", model.toString(), there, "--type", "F16")
                    .failsWith(ExitCode.FAILED, "would replace", "choose another name");
            run(overwrite, "merge", "-m", model.toString(), "-a", adapter.toString(), "-o", there)
                    .failsWith(ExitCode.FAILED, "would replace", "choose another name");
        }
        assertThat(model).hasSameBinaryContentAs(Path.of(Program.model()));
    }

    @Test
    void mergeDoesNotReplaceTheAdapterOrTheExamples() throws IOException {
        Path adapter = adapter();
        Path held = Files.writeString(folder.resolve("held.jsonl"), "{\"question\": \"a\", \"answer\": \"b\"}\n");
        for (Path output : List.of(adapter.resolve(Adapter.FILE_NAME), held)) {
            Program.run(
                            "merge",
                            "-m",
                            Program.model(),
                            "-a",
                            adapter.toString(),
                            "-d",
                            held.toString(),
                            "-o",
                            output.toString(),
                            "--overwrite")
                    .failsWith(ExitCode.FAILED, "would replace " + output);
        }
        Program.run("merge", "-m", Program.model(), "-a", adapter.toString(), "-o", adapter.toString())
                .failsWith(ExitCode.FAILED, "is a folder; a file is meant");
    }

    @Test
    void partsOfASplitModelAndFilesOfAFolderAreInputsToo() throws IOException {
        Path first = Files.writeString(folder.resolve("big-00001-of-00003.gguf"), "1");
        Path third = Files.writeString(folder.resolve("big-00003-of-00003.gguf"), "3");
        Path config =
                Files.writeString(Files.createDirectory(folder.resolve("hf")).resolve("config.json"), "{}");
        Inputs inputs = new Inputs().add(first).add(config.getParent());

        for (Path output : List.of(first, third, config, folder.resolve("hf/../hf/config.json"))) {
            assertThatExceptionOfType(LoricaException.class)
                    .isThrownBy(() -> inputs.refuse("it", output))
                    .withMessageStartingWith("it would replace");
        }
        inputs.refuse("it", folder.resolve("big-00002-of-00003.gguf"));
        inputs.refuse("it", folder.resolve("hf/new.gguf"));
        Program.run("convert", config.getParent().toString(), config.toString(), "--overwrite")
                .failsWith(ExitCode.FAILED, "would replace");
    }

    @Test
    void anotherFileIsReplacedOnlyWhenThatIsSaid() throws IOException {
        Path output = Files.writeString(folder.resolve("thesis.gguf"), "years of work");
        Path adapter = adapter();
        List<String[]> commands = List.of(
                new String[] {"quantize", Program.model(), output.toString(), "--type", "Q8_0"},
                new String[] {"merge", "-m", Program.model(), "-a", adapter.toString(), "-o", output.toString()});
        for (String[] command : commands) {
            Files.writeString(output, "years of work");
            run(false, command).failsWith(ExitCode.FAILED, "thesis.gguf is there already", "--overwrite");
            assertThat(output).hasContent("years of work");
            run(true, command).succeeds();
            assertThat(Files.size(output)).isGreaterThan(1000);
        }
        run(false, "quantize", Program.model(), folder.resolve("no/where.gguf").toString())
                .failsWith(ExitCode.FAILED, "is no folder");
    }

    @Test
    void exportNeitherReplacesItsAdapterNorAnotherOne() throws IOException {
        Path adapter = adapter();
        String[] export = {"export", "-m", Program.model(), "-a", adapter.toString(), "-o"};
        run(true, Program.with(export, adapter.toString())).failsWith(ExitCode.FAILED, "would replace");
        Path output = folder.resolve("exported");
        run(false, Program.with(export, output.toString())).succeeds();
        run(false, Program.with(export, output.toString())).failsWith(ExitCode.FAILED, "already", "--overwrite");
        run(true, Program.with(export, output.toString(), "--format", "gguf")).succeeds();
        assertThat(output.toFile().list()).containsExactlyInAnyOrder("adapter.gguf", "lorica_adapter.json");
    }

    @Test
    void trainReplacesNothingThatItReads() throws IOException {
        Path adapter = adapter();
        Path log = adapter.resolve("train_log.jsonl");
        for (String[] input : List.of(
                new String[] {"-d", log.toString()},
                new String[] {"-d", data().toString(), "-a", adapter.toString()},
                new String[] {"-d", data().toString(), "--eval-data", log.toString()},
                new String[] {
                    "-d",
                    data().toString(),
                    "-a",
                    adapter.resolve("adapter.gguf").toString()
                })) {
            Program.run(Program.with(
                            Program.with(new String[] {
                                "train", "-m", Program.model(), "-o", adapter.toString(), "--overwrite"
                            }),
                            input))
                    .failsWith(ExitCode.FAILED, "would replace");
        }
        Path checkpoint = adapter.resolve("checkpoint-1");
        Program.run(
                        "train",
                        "-m",
                        Program.model(),
                        "-o",
                        adapter.toString(),
                        "--overwrite",
                        "-d",
                        data().toString(),
                        "-a",
                        checkpoint.toString())
                .failsWith(ExitCode.FAILED, "would delete");
        assertThat(checkpoint).isDirectory();
    }

    @Test
    void aFinishedAdapterIsNotTrainedOverUnasked() throws IOException {
        Path adapter = adapter();
        byte[] before = Files.readAllBytes(adapter.resolve(Adapter.FILE_NAME));
        String[] train = {
            "train", "-m", Program.model(), "-d", data().toString(), "-o", adapter.toString(), "--max-steps=2"
        };

        run(false, train).failsWith(ExitCode.FAILED, "holds a finished adapter", "--resume", "--overwrite");
        assertThat(adapter.resolve(Adapter.FILE_NAME)).hasBinaryContent(before);
        run(true, Program.with(train, "--save-strategy=no")).succeeds();
        assertThat(adapter.resolve(Adapter.FILE_NAME).toFile().length()).isPositive();
        Program resumed = run(false, Program.with(train, "--resume"));
        assertThat(resumed.exitCode()).isEqualTo(ExitCode.FAILED);
        assertThat(resumed.err()).contains("holds a finished adapter, and no checkpoint to go on from");
    }

    @Test
    void theEndOfTheProgramTakesAwayWhatIsHalfWritten() throws IOException {
        long own = ProcessHandle.current().pid();
        for (String name : List.of("out.gguf.tmp-" + own + "-3", "out.gguf.f32.tmp-" + own + "-1.tmp-" + own + "-2")) {
            Files.writeString(folder.resolve(name), "half");
        }
        List<Path> others = new ArrayList<>();
        for (String name : List.of("out.gguf", "out.gguf.tmp-1-3", "another.gguf.tmp-" + own + "-3")) {
            others.add(Files.writeString(folder.resolve(name), "of others"));
        }
        OutputFile.removeTemporaries(folder.resolve("out.gguf"));
        try (var files = Files.list(folder)) {
            assertThat(files).containsExactlyInAnyOrderElementsOf(others);
        }
    }

    private Path adapter() throws IOException {
        return Program.adapter(folder.resolve("adapter"), data(), "--save-steps=1");
    }

    private Path data() throws IOException {
        return Files.writeString(folder.resolve("data.jsonl"), "{\"question\": \"Who?\", \"answer\": \"He.\"}\n");
    }

    private static Program run(boolean overwrite, String... command) {
        return Program.run(overwrite ? Program.with(command, "--overwrite") : command);
    }
}
