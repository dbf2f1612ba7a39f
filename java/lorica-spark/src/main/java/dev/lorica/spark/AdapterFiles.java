package dev.lorica.spark;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.exceptions.FileAccessException;
import java.io.IOException;
import java.io.Serializable;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;
import java.util.UUID;
import java.util.stream.Stream;

/**
 * The files of an adapter's folder, on their way to another machine: its weights, and how it was trained.
 *
 * @param id    tells adapters apart
 * @param files by their names
 */
record AdapterFiles(String id, Map<String, byte[]> files) implements Serializable {
    /** Those that this JVM has open, by their model and {@link #id}. */
    private static final Map<String, Adapter> OPEN = new HashMap<>();

    /** The adapter as it is now. */
    static AdapterFiles of(Adapter adapter) {
        return inTemporaryFolder(folder -> {
            adapter.save(folder);
            return read(folder);
        });
    }

    /** The files of a folder that an adapter was saved in. */
    static AdapterFiles read(Path folder) {
        Map<String, byte[]> files = new TreeMap<>();
        try (Stream<Path> all = Files.list(folder)) {
            for (Path file : all.filter(Files::isRegularFile).toList()) {
                files.put(file.getFileName().toString(), Files.readAllBytes(file));
            }
        } catch (IOException e) {
            throw new FileAccessException(folder + " cannot be read: " + e, e);
        }
        return new AdapterFiles(UUID.randomUUID().toString(), files);
    }

    void write(Path folder) {
        try {
            for (Map.Entry<String, byte[]> file : files.entrySet()) {
                Files.write(folder.resolve(file.getKey()), file.getValue());
            }
        } catch (IOException e) {
            throw new FileAccessException(folder + " cannot be written: " + e, e);
        }
    }

    /** Opens it for the caller to close. */
    Adapter load(Model model) {
        return inTemporaryFolder(folder -> {
            write(folder);
            return Adapter.load(model, folder);
        });
    }

    /** Opens it for as long as the JVM runs. */
    Adapter shared(SparkModel named, Model model) {
        synchronized (OPEN) {
            return OPEN.computeIfAbsent(named + " " + id, key -> load(model));
        }
    }

    private interface Work<T> {
        T in(Path folder) throws IOException;
    }

    private static <T> T inTemporaryFolder(Work<T> work) {
        try {
            Path folder = Files.createTempDirectory("lorica-adapter");
            try {
                return work.in(folder);
            } finally {
                try (Stream<Path> files = Files.list(folder)) {
                    for (Path file : files.toList()) {
                        Files.delete(file);
                    }
                }
                Files.delete(folder);
            }
        } catch (IOException e) {
            throw new FileAccessException("the adapter cannot be put into a temporary folder: " + e, e);
        }
    }
}
