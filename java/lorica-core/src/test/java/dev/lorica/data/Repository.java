package dev.lorica.data;

import java.nio.file.Path;

/** Files of the source tree that tests read. */
final class Repository {
    private Repository() {}

    static Path file(String path) {
        return Path.of(System.getProperty("lorica.repository", "../..")).resolve(path);
    }
}
