package dev.lorica.cli;

import java.io.Closeable;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** The program at a terminal of 100 columns: {@code script} of util-linux makes one, keys go in and what is shown comes out. */
final class PseudoTerminal implements Closeable {
    private static final long PATIENCE_SECONDS = 240;

    private final Process process;
    private final StringBuilder screen = new StringBuilder();
    /** How much of what is shown was waited for. */
    private int seen;

    private boolean over;

    PseudoTerminal(Map<String, String> environment, String... args) throws IOException {
        List<String> words = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                System.getProperty("surefire.test.class.path", System.getProperty("java.class.path")),
                LoricaCli.class.getName()));
        words.addAll(List.of(args));
        StringBuilder command = new StringBuilder("stty rows 40 cols 100; exec");
        words.forEach(word -> command.append(' ').append(Shell.quote(word)));
        // What a shell starts in the background ignores SIGINT, and so does all that it starts, these tests among them.
        ProcessBuilder builder =
                new ProcessBuilder("env", "--default-signal=INT", "script", "-qfec", command.toString(), "/dev/null");
        builder.environment().put("TERM", "xterm");
        builder.environment().put("LC_ALL", "C.UTF-8");
        builder.environment().put("SHELL", "/bin/sh");
        builder.environment().putAll(environment);
        process = builder.redirectErrorStream(true).start();
        Thread reader = new Thread(this::read, "what the terminal shows");
        reader.setDaemon(true);
        reader.start();
    }

    static boolean isThere() {
        return Files.isExecutable(Path.of("/usr/bin/script"));
    }

    private void read() {
        byte[] bytes = new byte[4096];
        try (InputStream in = process.getInputStream()) {
            for (int n; (n = in.read(bytes)) >= 0; ) {
                synchronized (screen) {
                    screen.append(new String(bytes, 0, n, StandardCharsets.ISO_8859_1));
                    screen.notifyAll();
                }
            }
        } catch (IOException e) {
            // The terminal is gone.
        }
        synchronized (screen) {
            over = true;
            screen.notifyAll();
        }
    }

    /** Presses keys: characters, and what control keys send. */
    void type(String keys) throws IOException {
        process.getOutputStream().write(keys.getBytes(StandardCharsets.UTF_8));
        process.getOutputStream().flush();
    }

    /** Types a line. */
    void enter(String line) throws IOException {
        type(line + "\r");
    }

    /** What is shown until one of {@code texts} is, from where the last call ended, without the codes that move and colour. */
    String until(String... texts) throws InterruptedException {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE_SECONDS);
        synchronized (screen) {
            while (true) {
                String shown = plain(screen.toString());
                int first = Integer.MAX_VALUE;
                for (String text : texts) {
                    int at = shown.indexOf(text, seen);
                    first = at < 0 ? first : Math.min(first, at + text.length());
                }
                if (first < Integer.MAX_VALUE) {
                    String part = shown.substring(seen, first);
                    seen = first;
                    return part;
                }
                long left = TimeUnit.NANOSECONDS.toMillis(deadline - System.nanoTime());
                if (over || left <= 0) {
                    throw new AssertionError(
                            "\"" + String.join("\" or \"", texts) + "\" was not shown, but: " + shown.substring(seen));
                }
                screen.wait(left);
            }
        }
    }

    int exitCode() throws InterruptedException {
        if (!process.waitFor(PATIENCE_SECONDS, TimeUnit.SECONDS)) {
            throw new AssertionError("it does not end; it shows: " + plain(screen.toString()));
        }
        return process.exitValue();
    }

    private static String plain(String shown) {
        return new String(shown.getBytes(StandardCharsets.ISO_8859_1), StandardCharsets.UTF_8)
                .replaceAll("\u001b(\\[[0-9;?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78M])", "")
                .replace("\r", "");
    }

    @Override
    public void close() {
        process.descendants().forEach(ProcessHandle::destroyForcibly);
        process.destroyForcibly();
    }
}
