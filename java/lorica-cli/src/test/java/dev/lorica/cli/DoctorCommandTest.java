package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import org.junit.jupiter.api.Test;

/** On the machine of the test, whatever it has; {@link GpuTest} has the others. */
class DoctorCommandTest {
    @Test
    void describesTheDevicesAndSaysWhyOneIsMissing() {
        JsonNode json = Program.run("doctor", "--json").succeeds().json();

        JsonNode cpu = json.get("devices").get(0);
        assertThat(cpu.get("detail").asText()).contains("thread");
        assertThat(cpu.get("available_memory").asLong()).isPositive();
        assertThat(cpu.get("peak_flops").asDouble()).isGreaterThan(1e8);
        boolean gpus = json.get("devices").size() > 1;
        assertThat(json.get("cuda").get("problem").asText().isEmpty()).isEqualTo(gpus);
        assertThat(json.get("auto").asText()).isEqualTo(gpus ? "cuda:0" : "cpu");
        assertThat(json.get("auto_reason").asText()).isNotEmpty();

        assertThat(Program.run("doctor").succeeds().out())
                .containsPattern("cpu +.*free; products up to \\d+ GFLOP/s\n")
                .containsPattern("cuda +\\S")
                .containsPattern("auto +takes \\S+; \\S");
    }
}
