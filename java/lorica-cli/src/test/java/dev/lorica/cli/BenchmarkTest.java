package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** {@code scripts/bench_peers.py}, with a PEFT that is played. */
class BenchmarkTest {
    /** Seconds of a step, as PEFT would say them in the one type and in the other. */
    private static final String PLAYED =
            """
            import json, sys
            sys.path.insert(0, "scripts")
            import bench_peers

            SECONDS = {"bfloat16": %s, "float32": %s}

            class Played:
                def __init__(self, command, log):
                    self.seconds = SECONDS[json.loads(command[-1])["dtype"]]
                def step(self):
                    return self.seconds
                def finish(self):
                    pass

            bench_peers.Process = Played
            print(bench_peers.faster_dtype({"shape": "s135"}, None)[0])
            """;

    @ParameterizedTest
    @CsvSource({"3.0, 1.0, float32", "1.0, 3.0, bfloat16"})
    void peftIsMeasuredInTheTypeInWhichItIsFaster(String bf16, String f32, String taken) throws Exception {
        Path repository = Path.of(Program.repository(""));
        assumeTrue(isThere("python3"), "python3 is not there");
        ProcessBuilder builder = new ProcessBuilder("python3", "-B", "-")
                .directory(repository.toFile())
                .redirectErrorStream(true);
        Process python = builder.start();
        try (var in = python.getOutputStream()) {
            in.write(PLAYED.formatted(bf16, f32).getBytes(StandardCharsets.UTF_8));
        }

        String said = new String(python.getInputStream().readAllBytes(), StandardCharsets.UTF_8);

        assertThat(python.waitFor(5, TimeUnit.MINUTES)).isTrue();
        assertThat(said.strip()).isEqualTo(taken);
    }

    private static boolean isThere(String program) throws InterruptedException {
        try {
            return new ProcessBuilder(program, "--version").start().waitFor() == 0;
        } catch (IOException e) {
            return false;
        }
    }
}
