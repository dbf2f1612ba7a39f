package dev.lorica;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * A server's day in a JVM of its own, {@link Soak}, whose limits on threads and on memory come and go meanwhile. For how long: {@code
 * -DargLine=-Dlorica.soakSeconds=3600}.
 */
class SoakTest {
    private static final int SECONDS = Integer.getInteger("lorica.soakSeconds", 15);
    /** How long the last calls may take, and a JVM to begin. */
    private static final int GRACE_SECONDS = 180 + SECONDS / 6;
    /** A user who has nothing else running: root is not held to a number of threads. */
    private static final String NOBODY = "54321";

    @TempDir
    Path folder;

    @Test
    void nothingWaitsForEverNothingLeaksAndNothingEndsTheProcessUnderLimits() throws Exception {
        assumeTrue(Files.isExecutable(Path.of("/usr/bin/prlimit")), "prlimit, of util-linux, is not there");
        Process soak = begin();
        List<String> output = new ArrayList<>();
        Thread reader = new Thread(() -> read(soak, output));
        reader.start();
        try {
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(SECONDS + GRACE_SECONDS);
            Random random = new Random(11);
            boolean isLimited = false;
            while (soak.isAlive() && System.nanoTime() < end) {
                Thread.sleep(500);
                if (!has(output, "ready")) {
                    continue;
                }
                limit(soak.pid(), random);
                if (!isLimited) {
                    soak.getOutputStream().write('\n');
                    soak.getOutputStream().flush();
                }
                isLimited = true;
            }
            assertThat(soak.isAlive()).as("still at work: " + output).isFalse();
        } finally {
            soak.destroyForcibly();
        }
        reader.join();
        System.out.println("soak: " + output);
        assertThat(soak.exitValue()).as(String.join("\n", output)).isZero();
        assertThat(output).anyMatch(line -> line.startsWith("acts "));
    }

    private Process begin() throws IOException {
        List<String> command = asItsUser();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        // What the JVM itself needs it takes at the beginning: the limits are to meet the library.
        command.addAll(List.of("-Xms256m", "-Xmx256m", "-XX:+AlwaysPreTouch", "-XX:-UseDynamicNumberOfGCThreads"));
        command.addAll(List.of(
                "-XX:-UseDynamicNumberOfCompilerThreads",
                "-Xlog:os+thread=off",
                "-XX:ErrorFile=" + folder.resolve("hs_err")));
        command.add("-Dlorica.repository=" + System.getProperty("lorica.repository"));
        command.add("-Dorg.bytedeco.javacpp.cachedir=" + folder.resolve("cache"));
        command.addAll(List.of("-cp", System.getProperty("java.class.path"), Soak.class.getName()));
        command.addAll(List.of(Integer.toString(SECONDS), folder.toString()));
        return new ProcessBuilder(command).redirectErrorStream(true).start();
    }

    /** Before a command: what makes it that of the soak's user. */
    private static List<String> asItsUser() {
        List<String> command = new ArrayList<>();
        if ("root".equals(System.getProperty("user.name"))) {
            command.addAll(List.of("setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"));
            // The files of the build may be root's alone.
            command.addAll(List.of("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override"));
        }
        return command;
    }

    private static void read(Process process, List<String> lines) {
        try (BufferedReader in =
                new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                synchronized (lines) {
                    lines.add(line);
                }
            }
        } catch (IOException e) {
            synchronized (lines) {
                lines.add(e.toString());
            }
        }
    }

    private static boolean has(List<String> lines, String line) {
        synchronized (lines) {
            return lines.contains(line);
        }
    }

    /** No threads more than there are, or a few; a gibibyte or two more of memory. */
    private static void limit(long pid, Random random) throws Exception {
        long threads = threadsOfUserOf(pid) + List.of(0, 0, 1, 4).get(random.nextInt(4));
        long bytes = (status(pid, "VmData") << 10) + ((1L + random.nextInt(2)) << 30);
        List<String> command = asItsUser();
        command.addAll(List.of("prlimit", "--pid", Long.toString(pid), "--nproc=" + threads + ":"));
        command.add("--data=" + bytes + ":");
        Process limit = new ProcessBuilder(command).redirectErrorStream(true).start();
        String said = new String(limit.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        boolean over = limit.waitFor() != 0 && !Files.exists(Path.of("/proc/" + pid));
        assertThat(over ? "" : said).isEmpty();
    }

    /** The limit counts the threads of a user. */
    private static long threadsOfUserOf(long pid) throws IOException {
        long user = status(pid, "Uid");
        try (Stream<Path> processes = Files.list(Path.of("/proc"))) {
            return processes
                    .filter(process -> process.getFileName().toString().matches("\\d+"))
                    .map(process -> Long.parseLong(process.getFileName().toString()))
                    .filter(process -> status(process, "Uid") == user)
                    .mapToLong(process -> status(process, "Threads"))
                    .sum();
        }
    }

    /** The first number of a line of a process's status, memory in KiB; 0 when the process is gone. */
    private static long status(long pid, String key) {
        try {
            return Files.readAllLines(Path.of("/proc/" + pid + "/status")).stream()
                    .filter(line -> line.startsWith(key + ":"))
                    .mapToLong(line -> Long.parseLong(
                            line.substring(key.length() + 1).strip().split("\\s+")[0]))
                    .findFirst()
                    .orElse(0);
        } catch (IOException e) {
            return 0;
        }
    }
}
