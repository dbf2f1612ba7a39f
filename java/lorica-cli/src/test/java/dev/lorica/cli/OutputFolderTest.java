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

class OutputFolderTest {
    @TempDir
    Path folder;

    @Test
    void takesAnEmptyFolderAndLeavesItWhenNothingWasSaved() throws IOException {
        try (OutputFolder output = OutputFolder.prepare(folder, false)) {
            assertThat(output.hasAdapter()).isFalse();
            assertThat(folder).isDirectoryNotContaining("glob:**/*adapter*");
        }
        assertThat(folder).isEmptyDirectory();
    }

    @Test
    void takesAwayAFolderThatItMadeWhenNothingWasSaved() throws IOException {
        Path kept = folder.resolve("a/kept");
        try (OutputFolder output = OutputFolder.prepare(folder.resolve("a/lost"), false)) {
            assertThat(output.path()).isDirectory();
        }
        try (OutputFolder output = OutputFolder.prepare(kept, false)) {
            Files.writeString(output.path().resolve(Adapter.FILE_NAME), "saved");
        }

        assertThat(folder.resolve("a")).isDirectoryContaining("glob:**/kept").isDirectoryNotContaining("glob:**/lost");
    }

    @Test
    void refusesSomeoneElsesFolderUnlessToldOtherwise() throws IOException {
        Files.writeString(folder.resolve("thesis.doc"), "years of work");

        assertThatExceptionOfType(LoricaException.class)
                .isThrownBy(() -> OutputFolder.prepare(folder, false))
                .withMessageContaining("none of them is an adapter")
                .withMessageContaining("--overwrite-output-dir");
        OutputFolder.prepare(folder, true).close();
        assertThat(folder.resolve("thesis.doc")).hasContent("years of work");
    }

    @Test
    void takesAnAdaptersFolder() throws IOException {
        Files.writeString(folder.resolve(Adapter.FILE_NAME), "an adapter");

        try (OutputFolder output = OutputFolder.prepare(folder, false)) {
            assertThat(output.hasAdapter()).isTrue();
        }
    }

    @Test
    void refusesAFolderWithoutRoomForTheAdapter() {
        try (OutputFolder output = OutputFolder.prepare(folder, false)) {
            output.requireSpace(1);
            assertThatExceptionOfType(LoricaException.class)
                    .isThrownBy(() -> output.requireSpace(Long.MAX_VALUE))
                    .withMessageMatching(
                            "--output .* has room for .*; the adapter takes .*: choose another folder, or make room");
        }
    }

    @Test
    void refusesAFolderThatAnotherRunWritesInto() throws Exception {
        try (OutputFolder output = OutputFolder.prepare(folder, false)) {
            assertThatExceptionOfType(LoricaException.class)
                    .isThrownBy(() -> OutputFolder.prepare(folder, true))
                    .withMessage(
                            "--output " + folder
                                    + " is in use: another run writes into it; choose another folder, or wait until it is done");
        }
        OutputFolder.prepare(folder, false).close();

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
                    .isThrownBy(() -> OutputFolder.prepare(folder, false))
                    .withMessageContaining("is in use: another run writes into it");
        } finally {
            other.destroyForcibly().waitFor();
        }
        OutputFolder.prepare(folder, false).close();
        assertThat(folder).isEmptyDirectory();
    }

    /** A program that holds a folder until it is killed. */
    static final class HoldsAFolder {
        private HoldsAFolder() {}

        public static void main(String[] args) throws InterruptedException {
            try (OutputFolder output = OutputFolder.prepare(Path.of(args[0]), false)) {
                System.out.print("!");
                System.out.flush();
                Thread.sleep(60_000);
            }
        }
    }

    @Test
    void refusesAFile() throws IOException {
        Path file = Files.writeString(folder.resolve("file"), "x");

        assertThatExceptionOfType(LoricaException.class)
                .isThrownBy(() -> OutputFolder.prepare(file, false))
                .withMessageContaining("is a file; a folder is meant");
        assertThatExceptionOfType(LoricaException.class)
                .isThrownBy(() -> OutputFolder.prepare(file.resolve("below"), false))
                .withMessageEndingWith("below cannot be written to: Not a directory");
    }
}
