package dev.lorica.internal.c;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

class LoricaTest {
    @Test
    void native_library_loads_and_has_the_version_of_this_artifact() {
        String artifact = System.getProperty("lorica.version").replace("-SNAPSHOT", "");

        assertThat(Lorica.lorica_version().getString()).isEqualTo(artifact);
    }

    @Test
    void a_failing_call_returns_its_status_and_leaves_a_message_with_the_file() {
        lorica_gguf gguf = new lorica_gguf();

        int status = Lorica.lorica_gguf_open("/no/such/file.gguf", gguf);

        assertThat(status).isEqualTo(Lorica.LORICA_ERROR_IO);
        assertThat(gguf.isNull()).isTrue();
        assertThat(Lorica.lorica_last_error().getString()).contains("/no/such/file.gguf");
    }
}
