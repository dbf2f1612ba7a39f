package dev.lorica;

/**
 * What a device is and can do.
 *
 * @param name            {@code cpu}, {@code cuda:0}, …
 * @param detail          with which kernels: {@code AMX-BF16, bf16, 2 threads}
 * @param availableMemory bytes that are free now
 * @param peakFlops       operations per second of matrix products that stay in the cache, measured now; 0: not known
 */
public record DeviceInfo(String name, String detail, long availableMemory, double peakFlops) {}
