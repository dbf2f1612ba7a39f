package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import org.junit.jupiter.api.Test;

class DoctorCommandTest {
    @Test
    void describesTheDevicesAndSaysWhyOneIsMissing() {
        JsonNode json = Program.run("doctor", "--json").succeeds().json();

        assertThat(json.get("auto").asText()).isEqualTo("cpu");
        JsonNode cpu = json.get("devices").get(0);
        assertThat(cpu.get("detail").asText()).contains("thread");
        assertThat(cpu.get("available_memory").asLong()).isPositive();
        assertThat(cpu.get("peak_flops").asDouble()).isGreaterThan(1e8);
        JsonNode cuda = json.get("devices").get(1);
        assertThat(cuda.has("missing")).isNotEqualTo(cuda.has("detail"));

        assertThat(Program.run("doctor").succeeds().out())
                .containsPattern("cpu +.*free; products up to \\d+ GFLOP/s\n")
                .containsPattern("cuda +\\S")
                .contains("auto     takes cpu");
    }
}
