package dev.lorica.cli;

import dev.lorica.exceptions.LoricaException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;

/**
 * A file that a command is to write, looked at before anything is computed. While this is open, the end of the program, by
 * Ctrl-C or otherwise, takes away what is half written.
 */
final class OutputFile implements AutoCloseable {
    private final Thread atEnd;

    private OutputFile(Thread atEnd) {
        this.atEnd = atEnd;
    }

    /**
     * Sees to it that the file is none of the inputs, and no other one unless that may be replaced.
     *
     * @param path as the user named it
     */
    static OutputFile prepare(Path path, boolean overwrite, Inputs inputs) {
        requirePlace(path);
        inputs.refuse(path.toString(), path);
        if (Files.exists(path) && !overwrite) {
            throw new LoricaException(path + " is there already; choose another name, or replace it with --overwrite");
        }
        Thread atEnd = new Thread(() -> removeTemporaries(real(path)), "lorica-half-written");
        Runtime.getRuntime().addShutdownHook(atEnd);
        return new OutputFile(atEnd);
    }

    /** Sees to it that there can be a file of that name. */
    static void requirePlace(Path path) {
        if (Files.isDirectory(path)) {
            throw new LoricaException(path + " is a folder; a file is meant");
        }
        Path folder = path.toAbsolutePath().getParent();
        if (!Files.isDirectory(folder)) {
            throw new LoricaException(path + " cannot be written: " + folder + " is no folder");
        }
    }

    /** A link is followed when it is written through. */
    private static Path real(Path path) {
        try {
            return Files.isSymbolicLink(path) ? path.toRealPath() : path.toAbsolutePath();
        } catch (IOException e) {
            return path.toAbsolutePath();
        }
    }

    /** Those that this process has made. */
    static void removeTemporaries(Path target) {
        String own = ".tmp-" + ProcessHandle.current().pid() + "-";
        String name = target.getFileName().toString();
        List<Path> found;
        try (Stream<Path> files = Files.list(target.getParent())) {
            found = files.filter(file -> {
                        String other = file.getFileName().toString();
                        return other.startsWith(name)
                                && other.substring(name.length()).contains(own);
                    })
                    .toList();
        } catch (IOException e) {
            return;
        }
        for (Path file : found) {
            try {
                Files.deleteIfExists(file);
            } catch (IOException e) {
                // The next one who writes the file tries again.
            }
        }
    }

    @Override
    public void close() {
        try {
            Runtime.getRuntime().removeShutdownHook(atEnd);
        } catch (IllegalStateException e) {
            // The program ends, and the hook runs.
        }
    }
}
