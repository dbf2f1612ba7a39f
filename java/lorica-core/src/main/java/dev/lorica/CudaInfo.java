package dev.lorica;

import java.util.List;

/**
 * What there is of CUDA on this machine, usable or not.
 *
 * @param driverVersion  the newest CUDA that the NVIDIA driver runs, {@code 13.0}; empty: no driver, or no GPU library to ask it with
 * @param runtimeVersion the CUDA that the GPU library was built with; empty: there is no GPU library that can be opened
 * @param problem        why no GPU can be used; empty where one may be
 * @param remedy         what to do about that
 * @param gpus           the GPUs that the driver shows, {@code cuda:0} first
 */
public record CudaInfo(String driverVersion, String runtimeVersion, String problem, String remedy, List<Gpu> gpus) {
    /** Copies the list of GPUs. */
    public CudaInfo {
        gpus = List.copyOf(gpus);
    }

    /**
     * One GPU.
     *
     * @param device            {@code cuda:0}
     * @param name              {@code NVIDIA H100 80GB HBM3}
     * @param pciBusId          as nvidia-smi names it
     * @param computeCapability {@code 9.0}
     * @param totalMemory       bytes
     * @param freeMemory        bytes; 0 where it cannot be used
     * @param problem           why it cannot be used; empty where a kernel ran on it
     * @param remedy            what to do about that
     */
    public record Gpu(
            String device,
            String name,
            String pciBusId,
            String computeCapability,
            long totalMemory,
            long freeMemory,
            String problem,
            String remedy) {
        /** {@return whether it can be used: {@code problem} is empty then} */
        public boolean usable() {
            return problem.isEmpty();
        }
    }
}
