package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.jar.JarEntry;
import java.util.jar.JarOutputStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What the program says and does on machines with GPUs, good and bad. No GPU is needed: see {@link PlayedGpus}. */
class GpuTest {
    private static final String H100 = "NVIDIA H100 80GB HBM3/9.0/81920";
    private static final String T4 = "Tesla T4/7.5/16384";

    @TempDir
    Path folder;

    @Test
    void autoTakesTheGpuAndTheProgramSaysSo() {
        Program generated = PlayedGpus.of(H100)
                .run(
                        "generate",
                        "--model",
                        Program.model(),
                        "--prompt",
                        "The",
                        "--max-tokens",
                        "1",
                        "--temperature",
                        "0")
                .succeeds();

        assertThat(generated.err())
                .contains(
                        "device: cuda:0 (NVIDIA H100 80GB HBM3, compute capability 9.0, bf16, wgmma); the first GPU\n");
        assertThat(generated.out()).isNotBlank();
    }

    @Test
    void trainingSaysWhichDeviceAndWhy() throws IOException {
        Path data = folder.resolve("data.json");
        Files.writeString(data, "[{\"question\": \"Who?\", \"answer\": \"Mr. Collins.\"}]");
        JsonNode json = PlayedGpus.of(T4)
                .run(
                        "train",
                        "--model",
                        Program.model(),
                        "--data",
                        data.toString(),
                        "--output",
                        folder.resolve("adapter").toString(),
                        "--max-steps",
                        "1",
                        "--lora-r",
                        "1",
                        "--json")
                .succeeds()
                .json();

        assertThat(json.get("device").asText()).isEqualTo("cpu");
        assertThat(json.get("device_reason").asText())
                .isEqualTo("not cuda:0, Tesla T4: compute capability 7.5, and the kernels need 8.0 (Ampere) or newer");
    }

    @Test
    void aPrecisionThatOnlyTheReferenceHasIsNotForTheGpu() {
        Program plan =
                PlayedGpus.of(H100).run("plan", "--model", Program.model(), "--device", "cuda", "--precision", "f64");

        plan.failsWith(ExitCode.FAILED, "cuda", "bf16");
    }

    @Test
    void aDeviceThatIsNotThereIsAnErrorWithTheReason() {
        String[] plan = {"plan", "--model", Program.model(), "--device", "cuda"};
        PlayedGpus.of("driver=0")
                .run(plan)
                .failsWith(
                        ExitCode.FAILED,
                        "no GPU: no NVIDIA driver (libcuda.so.1 not found); install an NVIDIA driver that runs CUDA 13.0");

        PlayedGpus.of(H100 + "," + H100)
                .run("plan", "--model", Program.model(), "--device", "cuda:2")
                .failsWith(
                        ExitCode.FAILED,
                        "there is no device \"cuda:2\": this machine has 2 GPUs, the last is \"cuda:1\"");
    }

    @Test
    void thePlanIsForTheFreeMemoryOfTheGpu() {
        String machine = "Small/8.6/200," + H100;
        JsonNode small = plan(machine, "cuda:0");
        JsonNode large = plan(machine, "cuda:1");

        assertThat(small.get("available").asLong()).isBetween(190L << 20, 200L << 20);
        assertThat(large.get("available").asLong()).isBetween(81910L << 20, 81920L << 20);
        int smallBatch =
                small.get("with_checkpointing").get("largest_batch_size").asInt();
        int largeBatch =
                large.get("with_checkpointing").get("largest_batch_size").asInt();
        assertThat(smallBatch).isPositive();
        assertThat(largeBatch).isGreaterThan(10 * smallBatch);
    }

    private static JsonNode plan(String machine, String device) {
        return PlayedGpus.of(machine)
                .run("plan", "--model", Program.model(), "--device", device, "--json")
                .succeeds()
                .json();
    }

    @Test
    void doctorDescribesEachGpu() {
        PlayedGpus machine = PlayedGpus.of(H100 + "," + T4).withDriverLibrary();

        assertThat(machine.run("doctor").succeeds().out())
                .contains("cuda     driver 580.65.06 for CUDA 13.0, GPU library with the runtime of CUDA 13.0\n")
                .contains(
                        "cuda:0   NVIDIA H100 80GB HBM3, compute capability 9.0; 80.0 GiB free of 80.0 GiB; can be used\n"
                                + "         in use by /usr/bin/python3 (4711, 6.0 GiB), process (4712)\n")
                .contains(
                        "cuda:1   Tesla T4, compute capability 7.5; 16.0 GiB; cannot be used: compute capability 7.5, and the"
                                + " kernels need 8.0 (Ampere) or newer\n"
                                + "         → use another GPU, or device \"cpu\"\n")
                .contains("auto     takes cuda:0; the first GPU\n");

        JsonNode json = machine.run("doctor", "--json").succeeds().json();
        assertThat(json.get("auto").asText()).isEqualTo("cuda:0");
        assertThat(json.get("cuda").get("driver").asText()).isEqualTo("580.65.06");
        assertThat(json.get("cuda").get("driver_version").asText()).isEqualTo("13.0");
        JsonNode h100 = json.get("devices").get(1);
        assertThat(h100.get("device").asText()).isEqualTo("cuda:0");
        assertThat(h100.get("available_memory").asLong()).isEqualTo(80L << 30);
        assertThat(h100.get("usable").asBoolean()).isTrue();
        assertThat(h100.get("processes").get(0).get("memory").asLong()).isEqualTo(6L << 30);
        JsonNode t4 = json.get("devices").get(2);
        assertThat(t4.get("usable").asBoolean()).isFalse();
        assertThat(t4.get("problem").asText()).contains("compute capability 7.5");
        assertThat(t4.has("processes")).isFalse();
    }

    @Test
    void doctorShowsTheGpusOfTheDriverWhereTheLibraryCannotUseThem() {
        assertThat(PlayedGpus.of("driver=12040")
                        .withDriverLibrary()
                        .run("doctor")
                        .succeeds()
                        .out())
                .contains(
                        "cuda     not there: the NVIDIA driver runs CUDA up to 12.4, and this library is built with 13.0\n"
                                + "         → update the NVIDIA driver\n"
                                + "         driver 580.65.06 for CUDA 12.4, GPU library with the runtime of CUDA 13.0\n"
                                + "         NVIDIA H100 80GB HBM3, compute capability 9.0; 70.0 GiB free of 80.0 GiB\n")
                .contains("auto     takes cpu; no GPU: the NVIDIA driver runs CUDA up to 12.4");
    }

    @Test
    void theLibraryIsFoundInTheJarWithTheClassifier() throws IOException {
        Path jar = folder.resolve("lorica-native-linux-x86_64-gpu.jar");
        try (OutputStream file = Files.newOutputStream(jar);
                JarOutputStream entries = new JarOutputStream(file)) {
            entries.putNextEntry(new JarEntry("dev/lorica/internal/c/" + platform() + "-gpu/liblorica-cuda.so"));
            Files.copy(PlayedGpus.library(), entries);
        }
        PlayedGpus machine = PlayedGpus.withoutLibrary(H100)
                .withJar(jar)
                .with("JAVA_TOOL_OPTIONS", "-Dorg.bytedeco.javacpp.cachedir=" + folder.resolve("cache"));

        JsonNode json = machine.run("doctor", "--json").succeeds().json();

        assertThat(json.get("auto").asText()).isEqualTo("cuda:0");
        assertThat(json.get("devices").get(1).get("name").asText()).isEqualTo("NVIDIA H100 80GB HBM3");
        try (var files = Files.walk(folder.resolve("cache"))) {
            assertThat(files.filter(file -> file.endsWith("liblorica-cuda.so"))).hasSize(1);
        }
    }

    @Test
    void aBrokenLibraryInTheJarIsNoReasonNotToWorkOnTheCpu() throws IOException {
        Path jar = folder.resolve("lorica-native-linux-x86_64-gpu.jar");
        try (OutputStream file = Files.newOutputStream(jar);
                JarOutputStream entries = new JarOutputStream(file)) {
            entries.putNextEntry(new JarEntry("dev/lorica/internal/c/" + platform() + "-gpu/liblorica-cuda.so"));
            entries.write(new byte[] {1, 2, 3});
        }
        JsonNode json = PlayedGpus.withoutLibrary(H100)
                .withJar(jar)
                .with("JAVA_TOOL_OPTIONS", "-Dorg.bytedeco.javacpp.cachedir=" + folder.resolve("cache"))
                .run("doctor", "--json")
                .succeeds()
                .json();

        assertThat(json.get("auto").asText()).isEqualTo("cpu");
        assertThat(json.get("cuda").get("problem").asText())
                .startsWith("the GPU library cannot be opened: ")
                .contains("liblorica-cuda.so");
    }

    private static String platform() {
        return org.bytedeco.javacpp.Loader.getPlatform();
    }
}
