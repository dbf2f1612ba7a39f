package dev.lorica.cli;

import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import picocli.CommandLine.Option;

/** Where to compute. */
@Section("Device")
final class DeviceOptions {
    @Option(
            names = "--device",
            paramLabel = "DEVICE",
            description =
                    "auto (the first GPU that works, else the CPU), cpu, cuda, cuda:N, or reference (slow and plain, to compare"
                            + " with). Default: ${DEFAULT-VALUE}")
    String device = "auto";

    @Option(
            names = {"-t", "--threads"},
            paramLabel = "N",
            description = "Threads; 0: all cores. Does not change results. Default: ${DEFAULT-VALUE}")
    int threads = 0;

    @Option(
            names = "--precision",
            paramLabel = "TYPE",
            description = "auto, bf16 (sums in f32), f32, or f64 (reference only). Default: ${DEFAULT-VALUE}")
    String precision = "auto";

    @Option(
            names = "--no-mmap",
            description = "Read the model into memory instead of mapping its file, which may then change or vanish")
    boolean noMmap;

    ModelConfig config() {
        return new ModelConfig(device, Choices.of("--precision", precision, Precision.class), threads, !noMmap);
    }
}
