package dev.lorica.cli;

import java.io.IOException;
import java.util.List;
import java.util.Optional;

/**
 * What the NVIDIA driver's own library (NVML) says of the GPUs, whether or not Lorica can use them: the driver's version and what
 * other processes hold. It is asked through {@code org.bytedeco:cuda}, which is optional.
 *
 * @param version {@code 580.65.06}
 */
record NvidiaDriver(String version, List<Gpu> gpus) {
    NvidiaDriver {
        gpus = List.copyOf(gpus);
    }

    /**
     * @param pciBusId as {@link dev.lorica.CudaInfo.Gpu#pciBusId}
     */
    record Gpu(
            String name,
            String pciBusId,
            String computeCapability,
            long totalMemory,
            long freeMemory,
            List<Process> processes) {
        Gpu {
            processes = List.copyOf(processes);
        }
    }

    /**
     * @param memory bytes on this GPU; 0: not known
     */
    record Process(long pid, String name, long memory) {}

    /** Empty without the driver, or without {@code org.bytedeco:cuda} and its libraries on the class path. */
    static Optional<NvidiaDriver> read() {
        try {
            return Nvml.read();
        } catch (LinkageError | IOException e) {
            return Optional.empty();
        }
    }

    Optional<Gpu> gpu(String pciBusId) {
        return gpus.stream()
                .filter(gpu -> gpu.pciBusId().equalsIgnoreCase(pciBusId))
                .findFirst();
    }
}
