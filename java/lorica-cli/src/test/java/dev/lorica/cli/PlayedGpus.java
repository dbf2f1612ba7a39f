package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;

/**
 * The program in a process of its own, on a machine that is played: its GPU library is the one of the native tests, which runs
 * CUDA's kernels on the CPU (native/tests/cuda_on_cpu).
 */
final class PlayedGpus {
    private static final Path BUILD = Path.of(System.getProperty("lorica.native.build", "../../native/build"));

    private final Map<String, String> environment = new LinkedHashMap<>();
    private final List<Path> classPath = new ArrayList<>();

    /** {@code machine} in the words of native/tests/cuda_on_cpu/cuda_on_cpu.cpp. */
    static PlayedGpus of(String machine) {
        return withoutLibrary(machine).with("LORICA_CUDA_LIBRARY", library().toString());
    }

    static PlayedGpus withoutLibrary(String machine) {
        return new PlayedGpus()
                .with("LORICA_CUDA_ON_CPU_MACHINE", machine)
                .with("LORICA_CUDA_LIBRARY", "")
                .with("LORICA_PCI_DEVICES", "/what/is/on/the/bus/is/not/known");
    }

    static Path library() {
        return built("liblorica_cuda_on_cpu.so");
    }

    private static Path built(String name) {
        Path file = BUILD.resolve(name);
        assumeTrue(Files.exists(file), () -> file + " is not there; scripts/test.sh builds it");
        return file;
    }

    /** With the driver's own library too. */
    PlayedGpus withDriverLibrary() {
        return with(
                "LD_LIBRARY_PATH",
                built("fake-nvml/libnvidia-ml.so.1").getParent().toString());
    }

    PlayedGpus with(String variable, String value) {
        environment.put(variable, value);
        return this;
    }

    PlayedGpus withJar(Path jar) {
        classPath.add(jar);
        return this;
    }

    Program run(String... args) {
        List<String> command = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin/java").toString(),
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                String.join(
                        ":",
                        Stream.concat(
                                        classPath.stream().map(Path::toString),
                                        Stream.of(System.getProperty("java.class.path")))
                                .toList()),
                LoricaCli.class.getName()));
        command.addAll(List.of(args));
        try {
            Path out = Files.createTempFile("lorica-out", ".txt");
            Path err = Files.createTempFile("lorica-err", ".txt");
            try {
                ProcessBuilder builder =
                        new ProcessBuilder(command).redirectOutput(out.toFile()).redirectError(err.toFile());
                builder.environment().putAll(environment);
                Process process = builder.start();
                assertThat(process.waitFor(10, TimeUnit.MINUTES))
                        .as("done in time")
                        .isTrue();
                return new Program(process.exitValue(), read(out), read(err));
            } finally {
                Files.delete(out);
                Files.delete(err);
            }
        } catch (IOException | InterruptedException e) {
            throw new AssertionError(e);
        }
    }

    private static String read(Path file) throws IOException {
        return Files.readString(file, StandardCharsets.UTF_8);
    }
}
