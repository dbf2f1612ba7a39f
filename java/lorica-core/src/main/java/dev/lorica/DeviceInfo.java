package dev.lorica;

/**
 * What a device is and can do.
 *
 * @param name            {@code cpu}, {@code cuda:0}, …
 * @param detail          which, and with which kernels: {@code AMX-BF16, bf16, 2 threads}
 * @param reason          why {@code auto} took it: {@code no GPU: no NVIDIA driver (libcuda.so.1 not found)}; empty where it was named
 * @param availableMemory bytes that are free now
 * @param peakFlops       operations per second of matrix products that stay in the cache, measured now; 0: not known
 */
public record DeviceInfo(String name, String detail, String reason, long availableMemory, double peakFlops) {
    /** {@return {@code cpu (AMX-BF16, bf16, 2 threads); no GPU: no NVIDIA driver (libcuda.so.1 not found)}} */
    public String inWords() {
        return inWords(name, detail, reason);
    }

    static String inWords(String name, String detail, String reason) {
        return name + (detail.isEmpty() ? "" : " (" + detail + ")") + (reason.isEmpty() ? "" : "; " + reason);
    }
}
