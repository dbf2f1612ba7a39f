package dev.lorica.train;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.ObjectWriter;
import com.fasterxml.jackson.databind.SerializationFeature;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.RewardException;
import dev.lorica.internal.json.Json;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/** A program that reads answers and writes rewards. */
final class RewardCommand implements RewardFunction {
    private static final ObjectWriter A_LINE = Json.MAPPER.writer().without(SerializationFeature.INDENT_OUTPUT);
    private static final int SHOWN = 80;

    /** A line with a number is short; whoever writes as much as this does not write numbers. */
    private static final int MOST_BYTES = 1 << 24;

    /** Of what it says beside, the end is of interest. */
    private static final int KEPT_BYTES = 1 << 14;

    private final List<String> command;
    private final Duration timeout;

    RewardCommand(List<String> command, Duration timeout) {
        if (command.isEmpty()) {
            throw new InvalidArgumentException("command is empty; it must be a program and its arguments");
        }
        if (timeout.isNegative() || timeout.isZero()) {
            throw new InvalidArgumentException("timeout is " + timeout + "; it must be more than 0");
        }
        this.command = List.copyOf(command);
        this.timeout = timeout;
    }

    @Override
    public String name() {
        return "command";
    }

    @Override
    public double[] rewards(List<Completion> completions) {
        Process process;
        try {
            process = new ProcessBuilder(command).start();
        } catch (IOException e) {
            throw failed("cannot be started: " + e.getMessage());
        }
        try {
            CompletableFuture<byte[]> output = read(process.getInputStream(), stream -> stream.readNBytes(MOST_BYTES));
            CompletableFuture<byte[]> errors = read(process.getErrorStream(), RewardCommand::end);
            byte[] input = lines(completions).getBytes(StandardCharsets.UTF_8);
            CompletableFuture.runAsync(() -> write(input, process.getOutputStream()), RewardCommand::run);
            if (!process.waitFor(timeout.toMillis(), TimeUnit.MILLISECONDS)) {
                throw failed(
                        "has not ended after " + seconds() + "; it reads a line for each answer, to the end, and writes"
                                + " a line with a number for each");
            }
            if (isFull(output)) {
                throw failed("wrote more than " + (MOST_BYTES >> 20)
                        + " MiB; a line with a number is meant for each answer");
            }
            if (process.exitValue() != 0) {
                String said = lastLine(text(errors));
                throw failed("ended with status " + process.exitValue() + (said.isEmpty() ? "" : ": " + said));
            }
            return numbers(text(output).lines().filter(line -> !line.isBlank()).toList(), completions.size());
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw failed("was interrupted");
        } finally {
            process.descendants().forEach(ProcessHandle::destroyForcibly);
            process.destroyForcibly();
        }
    }

    /** A thread that does not keep the program from ending. */
    private static void run(Runnable work) {
        Thread thread = new Thread(work, "lorica-reward");
        thread.setDaemon(true);
        thread.start();
    }

    /** What is read of a stream. */
    private interface Reader {
        byte[] read(InputStream stream) throws IOException;
    }

    private static byte[] end(InputStream stream) throws IOException {
        byte[] kept = new byte[0];
        for (byte[] next = stream.readNBytes(KEPT_BYTES); next.length > 0; next = stream.readNBytes(KEPT_BYTES)) {
            byte[] both = Arrays.copyOf(kept, kept.length + next.length);
            System.arraycopy(next, 0, both, kept.length, next.length);
            kept = Arrays.copyOfRange(both, Math.max(0, both.length - KEPT_BYTES), both.length);
        }
        return kept;
    }

    private static CompletableFuture<byte[]> read(InputStream stream, Reader reader) {
        return CompletableFuture.supplyAsync(
                () -> {
                    try (stream) {
                        return reader.read(stream);
                    } catch (IOException e) {
                        return new byte[0];
                    }
                },
                RewardCommand::run);
    }

    /** Whether it wrote more than is read. What was read may come a moment after the end of the program, which it is the cause of. */
    private static boolean isFull(CompletableFuture<byte[]> output) throws InterruptedException {
        try {
            return output.get(1, TimeUnit.SECONDS).length == MOST_BYTES;
        } catch (ExecutionException | TimeoutException e) {
            return false;
        }
    }

    /** What does not want to know all may end before it has read all. */
    private static void write(byte[] input, OutputStream stream) {
        try (stream) {
            stream.write(input);
        } catch (IOException e) {
            return;
        }
    }

    /** Whoever holds the other end open after the program itself has ended is waited for no longer than for the program. */
    private String text(CompletableFuture<byte[]> bytes) throws InterruptedException {
        try {
            return new String(bytes.get(timeout.toMillis(), TimeUnit.MILLISECONDS), StandardCharsets.UTF_8);
        } catch (ExecutionException | TimeoutException e) {
            throw failed("has not closed its output after " + seconds());
        }
    }

    private static String lines(List<Completion> completions) {
        StringBuilder lines = new StringBuilder();
        for (Completion completion : completions) {
            Map<String, Object> line = new LinkedHashMap<>();
            line.put("prompt", completion.prompt());
            line.put("completion", completion.text());
            line.put("tokens", completion.tokens());
            line.put("ended", completion.ended());
            if (!completion.record().answer().isEmpty()) {
                line.put("answer", completion.record().answer());
            }
            try {
                lines.append(A_LINE.writeValueAsString(line)).append('\n');
            } catch (JacksonException e) {
                throw new IllegalStateException(e);
            }
        }
        return lines.toString();
    }

    private double[] numbers(List<String> lines, int expected) {
        if (lines.size() != expected) {
            throw failed("wrote " + lines.size() + (lines.size() == 1 ? " line for " : " lines for ") + expected
                    + " answers; a line with a number is meant for each");
        }
        double[] numbers = new double[expected];
        for (int i = 0; i < expected; i++) {
            numbers[i] = number(lines.get(i).strip(), i + 1);
        }
        return numbers;
    }

    private double number(String line, int number) {
        if (line.equals("null")) {
            return Double.NaN;
        }
        try {
            double value = Double.parseDouble(line);
            if (!Double.isInfinite(value)) {
                return value;
            }
        } catch (NumberFormatException e) {
            throw noNumber(line, number);
        }
        throw noNumber(line, number);
    }

    private RewardException noNumber(String line, int number) {
        return failed("wrote \"" + shown(line) + "\" as line " + number + "; a number is meant");
    }

    private static String lastLine(String text) {
        String stripped = text.strip();
        return shown(stripped.substring(stripped.lastIndexOf('\n') + 1));
    }

    private static String shown(String text) {
        return text.length() > SHOWN ? text.substring(0, SHOWN) + "…" : text;
    }

    private String seconds() {
        long millis = timeout.toMillis();
        return millis % 1000 == 0 ? millis / 1000 + " s" : millis + " ms";
    }

    private RewardException failed(String how) {
        return new RewardException("the reward command \"" + shown(String.join(" ", command)) + "\" " + how);
    }
}
