package dev.lorica.cli;

import dev.lorica.exceptions.FileAccessException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.BiConsumer;
import java.util.stream.Stream;

/**
 * A run of a sweep, which any machine can do that has the model and the data.
 *
 * @param name   of its folder
 * @param train  options of {@code lorica train} that all runs have
 * @param varied its own, with their values
 */
public record SweepRun(String name, List<String> train, Map<String, String> varied) implements Serializable {

    /**
     * What came of it.
     *
     * @param code  exit code of {@code lorica train}
     * @param error what went wrong; {@code null}: nothing
     * @param log   what was said meanwhile
     * @param files of its folder, by their names
     */
    public record Outcome(int code, String error, String log, Map<String, byte[]> files) implements Serializable {}

    /** Where runs of a sweep are done. */
    @FunctionalInterface
    public interface Cluster {
        /** Does them all; each is told to {@code done} when it has ended, from the calling thread. */
        void run(List<SweepRun> runs, BiConsumer<SweepRun, Outcome> done);
    }

    /** Does it here, in a temporary folder. */
    public Outcome run() {
        ByteArrayOutputStream said = new ByteArrayOutputStream();
        PrintStream log = new PrintStream(said, true, StandardCharsets.UTF_8);
        int code = ExitCode.FAILED;
        String error = null;
        Map<String, byte[]> files = new TreeMap<>();
        try {
            Path work = Files.createTempDirectory("lorica-sweep");
            try {
                Path folder = work.resolve(name);
                TrainCommand command = SweepCommand.command(
                        train, varied, folder, new Terminal(InputStream.nullInputStream(), log, log), null);
                if (varied.containsKey("--method")) {
                    command.dropWhatIsOfOtherMethods();
                }
                code = command.call();
                try (Stream<Path> all = Files.list(folder)) {
                    for (Path file : all.filter(Files::isRegularFile).toList()) {
                        files.put(file.getFileName().toString(), Files.readAllBytes(file));
                    }
                }
            } finally {
                delete(work);
            }
        } catch (RuntimeException | LinkageError e) {
            error = e.getMessage() == null ? e.toString() : LoricaCli.oneLine(e.getMessage());
        } catch (IOException e) {
            error = "the run's files: " + e;
        }
        return new Outcome(code, error, said.toString(StandardCharsets.UTF_8), files);
    }

    /** Puts the files of an outcome into a folder, as a whole or not at all. */
    static void write(Outcome outcome, Path folder, Path log) {
        Path temporary = folder.resolveSibling(folder.getFileName() + ".tmp");
        try {
            delete(temporary);
            delete(folder);
            Files.writeString(log, outcome.log());
            if (outcome.files().isEmpty()) {
                return;
            }
            Files.createDirectories(temporary);
            for (Map.Entry<String, byte[]> file : outcome.files().entrySet()) {
                Files.write(temporary.resolve(file.getKey()), file.getValue());
            }
            Files.move(temporary, folder);
        } catch (IOException e) {
            throw new FileAccessException(folder + " cannot be written: " + e, e);
        }
    }

    private static void delete(Path folder) throws IOException {
        if (!Files.exists(folder)) {
            return;
        }
        try (Stream<Path> tree = Files.walk(folder)) {
            for (Path one : tree.sorted(Comparator.reverseOrder()).toList()) {
                Files.delete(one);
            }
        }
    }
}
