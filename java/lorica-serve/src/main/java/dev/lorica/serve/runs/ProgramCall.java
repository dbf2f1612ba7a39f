package dev.lorica.serve.runs;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.exceptions.BusyException;
import dev.lorica.exceptions.CancelledException;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.InvalidArgumentException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.function.UnaryOperator;

/** Calls of the program that are waited for: a plan, a preview, an export. One at a time. */
public final class ProgramCall {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final int MOST_BYTES = 32 << 20;

    private static final long LOOK_MILLIS = 200;
    private static final long LAST_WORDS_MILLIS = 5000;

    /** Asked again and again while the program works. */
    interface Watch {
        /** Whether it is to go on. */
        boolean goesOn();
    }

    private final RunProgram program;
    private final Path folder;
    private final UnaryOperator<String> words;
    private final Semaphore one = new Semaphore(1, true);

    /**
     * @param folder in which the program runs, and its words are kept while it does
     * @param words  how they are shown
     */
    ProgramCall(RunProgram program, Path folder, UnaryOperator<String> words) {
        this.program = program;
        this.folder = folder;
        this.words = words;
    }

    /**
     * {@return what the program says with {@code --json}}
     *
     * @param arguments behind the program's name
     * @param millis    after which it is ended
     * @throws InvalidArgumentException with the program's own words, if it fails
     * @throws InterruptedException if the thread is interrupted, after which the program is ended
     */
    public ObjectNode json(List<String> arguments, long millis) throws InterruptedException {
        return json(arguments, millis, () -> true);
    }

    /** @throws CancelledException if the watch wanted it to end */
    ObjectNode json(List<String> arguments, long millis, Watch watch) throws InterruptedException {
        long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(millis);
        if (!one.tryAcquire(millis, TimeUnit.MILLISECONDS)) {
            throw new BusyException("other plans and exports are being made; later, please");
        }
        Path out = null;
        Path err = null;
        Process process = null;
        try {
            out = Files.createTempFile(folder, Runs.LEFT_OVER + "out", null);
            err = Files.createTempFile(folder, Runs.LEFT_OVER + "err", null);
            List<String> command = new ArrayList<>(program.command());
            command.addAll(arguments);
            command.add("--json");
            process = Runs.builder(command, folder)
                    .redirectOutput(out.toFile())
                    .redirectError(err.toFile())
                    .start();
            process.getOutputStream().close();
            while (!process.waitFor(LOOK_MILLIS, TimeUnit.MILLISECONDS)) {
                if (end - System.nanoTime() < 0) {
                    throw new BusyException("that takes longer than a request may; the command line has no such limit");
                }
                if (!watch.goesOn()) {
                    process.destroy(); // SIGTERM, upon which it takes away what is half written
                    process.waitFor(LAST_WORDS_MILLIS, TimeUnit.MILLISECONDS);
                    throw new CancelledException("it was stopped");
                }
            }
            if (process.exitValue() != 0) {
                throw new InvalidArgumentException(error(Files.readString(err, StandardCharsets.UTF_8)));
            }
            if (Files.size(out) > MOST_BYTES) {
                throw new InvalidArgumentException("there is more to show than a page can");
            }
            if (JSON.readTree(Files.readAllBytes(out)) instanceof ObjectNode answer) {
                return answer;
            }
            throw new FileAccessException("the program said no JSON", null);
        } catch (JacksonException e) {
            throw new FileAccessException("the program said no JSON", e);
        } catch (IOException e) {
            throw new FileAccessException("the program could not be called: " + e.getMessage(), e);
        } finally {
            if (process != null) {
                process.destroyForcibly();
            }
            delete(out);
            delete(err);
            one.release();
        }
    }

    private String error(String said) {
        List<String> lines =
                said.lines().filter(line -> !line.isBlank()).map(words).toList();
        return lines.stream()
                .filter(line -> line.startsWith("error: "))
                .map(line -> line.substring("error: ".length()))
                .findFirst()
                .orElse(lines.isEmpty() ? "the program failed without a word" : lines.get(lines.size() - 1));
    }

    private static void delete(Path file) {
        try {
            if (file != null) {
                Files.deleteIfExists(file);
            }
        } catch (IOException e) {
            file.toFile().deleteOnExit();
        }
    }
}
