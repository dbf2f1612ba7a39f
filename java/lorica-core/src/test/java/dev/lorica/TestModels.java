package dev.lorica;

import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.nio.file.Files;
import java.nio.file.Path;

/** Models of the source tree, and beside it, that tests read. */
final class TestModels {
    private TestModels() {}

    /** 7.3 M parameters, Llama architecture, in the repository. */
    static Path austen() {
        return repository().resolve("models/austen-7m-q4_0.gguf");
    }

    /** A vocabulary-only file; a test that wants one is skipped where it is not there. */
    static Path vocabulary(String name) {
        Path file = repository().resolve("../shared/data/vocab").resolve(name);
        assumeTrue(Files.exists(file), () -> file + " is not there");
        return file;
    }

    /** A file of the source tree. */
    static Path repository(String path) {
        return repository().resolve(path);
    }

    private static Path repository() {
        return Path.of(System.getProperty("lorica.repository", "../.."));
    }
}
