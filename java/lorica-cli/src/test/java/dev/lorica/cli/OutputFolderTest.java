package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;

import dev.lorica.adapter.Adapter;
import dev.lorica.exceptions.LoricaException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class OutputFolderTest {
    @TempDir
    Path folder;

    @Test
    void takesAnEmptyFolderAndLeavesItWhenNothingWasSaved() throws IOException {
        try (OutputFolder output = OutputFolder.prepare(folder, false, false)) {
            assertThat(output.hasAdapter()).isFalse();
            assertThat(folder).isDirectoryNotContaining("glob:**/*adapter*");
        }
        assertThat(folder).isEmptyDirectory();
    }

    @Test
    void takesAwayAFolderThatItMadeWhenNothingWasSaved() throws IOException {
        Path kept = folder.resolve("a/kept");
        try (OutputFolder output = OutputFolder.prepare(folder.resolve("a/lost"), false, false)) {
            assertThat(output.path()).isDirectory();
        }
        try (OutputFolder output = OutputFolder.prepare(kept, false, false)) {
            Files.writeString(output.path().resolve(Adapter.FILE_NAME), "saved");
        }

        assertThat(folder.resolve("a")).isDirectoryContaining("glob:**/kept").isDirectoryNotContaining("glob:**/lost");
    }

    @Test
    void aFileIsNoFolder() throws IOException {
        Path file = Files.writeString(folder.resolve("file"), "mine");
        Program.run("train", "-m=" + Program.model(), "-d=" + file, "-o=" + file, "--overwrite")
                .failsWith(ExitCode.FAILED, "--output " + file + " is a file; a folder is meant");
        assertThat(file).hasContent("mine");
    }

    @Test
    void refusesSomeoneElsesFolderUnlessToldOtherwise() throws IOException {
        Files.writeString(folder.resolve("thesis.doc"), "years of work");

        assertThatExceptionOfType(LoricaException.class)
                .isThrownBy(() -> OutputFolder.prepare(folder, false, false))
                .withMessageContaining("none of them is an adapter")
                .withMessageContaining("--overwrite");
        OutputFolder.prepare(folder, true, false).close();
        assertThat(folder.resolve("thesis.doc")).hasContent("years of work");
    }

    @Test
    void aFinishedAdapterIsReplacedOrGoneOnFromOnlyWhenThatIsSaid() throws IOException {
        Files.writeString(folder.resolve(Adapter.FILE_NAME), "an adapter");

        assertThatExceptionOfType(LoricaException.class)
                .isThrownBy(() -> OutputFolder.prepare(folder, false, false))
                .withMessageContaining("holds a finished adapter")
                .withMessageContaining("--resume")
                .withMessageContaining("--overwrite");
        for (boolean overwrite : new boolean[] {false, true}) {
            try (OutputFolder output = OutputFolder.prepare(folder, overwrite, !overwrite)) {
                assertThat(output.hasAdapter()).isTrue();
            }
        }
        assertThat(folder.resolve(Adapter.FILE_NAME)).hasContent("an adapter");
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "train_config.yaml.tmp",
                "train_config.yaml.tmp-12-0",
                "adapter.gguf.tmp-4711-3",
                "adapter_model.safetensors.tmp-1-99",
                "adapter_config.json.tmp-1-1",
                "lorica_adapter.json.tmp-1-1",
                "checkpoint-12.tmp",
                "checkpoint-12.old.tmp",
                ".lorica123.tmp"
            })
    void whatAKilledRunLeftHalfWrittenIsNobodyElsesAndTakenAway(String name) throws IOException {
        if (name.startsWith("checkpoint")) {
            Files.createDirectories(folder.resolve(name));
            Files.writeString(folder.resolve(name).resolve("adapter.gguf"), "half");
        } else {
            Files.writeString(folder.resolve(name), "half");
        }
        OutputFolder.prepare(folder, false, true).close();
        assertThat(folder).isEmptyDirectory();
    }

    @ParameterizedTest
    @ValueSource(strings = {"notes.tmp", "adapter.gguf.tmp-x", "checkpoint-a.tmp", "train_config.yaml.bak"})
    void whatOnlyLooksLikeThatIsLeftAlone(String name) throws IOException {
        Files.writeString(folder.resolve(name), "of somebody");
        assertThatExceptionOfType(LoricaException.class)
                .isThrownBy(() -> OutputFolder.prepare(folder, false, true))
                .withMessageContaining("none of them is an adapter");
        OutputFolder.prepare(folder, true, false).close();
        assertThat(folder.resolve(name)).hasContent("of somebody");
    }

    @Test
    void refusesAFolderWithoutRoomForTheAdapter() {
        try (OutputFolder output = OutputFolder.prepare(folder, false, false)) {
            output.requireSpace(1);
            assertThatExceptionOfType(LoricaException.class)
                    .isThrownBy(() -> output.requireSpace(Long.MAX_VALUE))
                    .withMessageMatching(
                            "--output .* has room for .*; the adapter takes .*: choose another folder, or make room");
        }
    }

    @Test
    void refusesAFolderThatAnotherRunWritesInto() throws Exception {
        try (OutputFolder output = OutputFolder.prepare(folder, false, false)) {
            assertThatExceptionOfType(LoricaException.class)
                    .isThrownBy(() -> OutputFolder.prepare(folder, true, false))
                    .withMessage("--output " + folder
                            + " is in use: another run writes into it; choose another folder, or wait until it"
                            + " is done");
        }
        OutputFolder.prepare(folder, false, false).close();

        // A run of another process, which is killed after it was met.
        Process other = new ProcessBuilder(
                        Path.of(System.getProperty("java.home"), "bin/java").toString(),
                        "-cp",
                        System.getProperty("java.class.path"),
                        HoldsAFolder.class.getName(),
                        folder.toString())
                .start();
        try {
            assertThat(other.getInputStream().read()).isEqualTo('!');
            assertThatExceptionOfType(LoricaException.class)
                    .isThrownBy(() -> OutputFolder.prepare(folder, false, false))
                    .withMessageContaining("is in use: another run writes into it");
        } finally {
            other.destroyForcibly().waitFor();
        }
        OutputFolder.prepare(folder, false, false).close();
        assertThat(folder).isEmptyDirectory();
    }

    /** A program that holds a folder until it is killed. */
    static final class HoldsAFolder {
        private HoldsAFolder() {}

        public static void main(String[] args) throws InterruptedException {
            try (OutputFolder output = OutputFolder.prepare(Path.of(args[0]), false, false)) {
                System.out.print("!");
                System.out.flush();
                Thread.sleep(Long.MAX_VALUE);
            }
        }
    }

    @Test
    void refusesAFile() throws IOException {
        Path file = Files.writeString(folder.resolve("file"), "x");

        assertThatExceptionOfType(LoricaException.class)
                .isThrownBy(() -> OutputFolder.prepare(file, false, false))
                .withMessageContaining("is a file; a folder is meant");
        assertThatExceptionOfType(LoricaException.class)
                .isThrownBy(() -> OutputFolder.prepare(file.resolve("below"), false, false))
                .withMessageEndingWith("below cannot be written to: Not a directory");
    }
}
