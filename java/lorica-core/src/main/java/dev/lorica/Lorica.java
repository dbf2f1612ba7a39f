package dev.lorica;

import dev.lorica.internal.Arguments;
import dev.lorica.internal.NativeDevices;
import java.util.List;

/** The library itself. */
public final class Lorica {
    private Lorica() {}

    /** {@return the version of the native library, {@code major.minor.patch}} */
    public static String version() {
        return NativeDevices.version();
    }

    /**
     * What the device is and can do that a model would be loaded to.
     *
     * @param config where a model would be loaded; the device of it is what counts
     * @return what the device is, in words and as numbers
     * @throws dev.lorica.exceptions.LoricaException if it is not there; the message says why
     */
    public static DeviceInfo device(ModelConfig config) {
        Arguments.given(config, "config");
        return NativeDevices.device(config.device(), config.precision().code, config.threads(), DeviceInfo::new);
    }

    /** {@return the GPUs of this machine and what is needed to use them} Not having any is no error. */
    public static CudaInfo cuda() {
        return NativeDevices.cuda(Lorica::cuda, Lorica::gpu);
    }

    private static CudaInfo cuda(int driver, int runtime, String problem, String remedy, List<CudaInfo.Gpu> gpus) {
        return new CudaInfo(cudaVersion(driver), cudaVersion(runtime), problem, remedy, gpus);
    }

    private static CudaInfo.Gpu gpu(
            int index,
            String name,
            String pciBusId,
            int computeMajor,
            int computeMinor,
            long totalMemory,
            long freeMemory,
            String problem,
            String remedy) {
        return new CudaInfo.Gpu(
                "cuda:" + index,
                name,
                pciBusId,
                computeMajor + "." + computeMinor,
                totalMemory,
                freeMemory,
                problem,
                remedy);
    }

    /** 13000 is 13.0. */
    private static String cudaVersion(int version) {
        return version == 0 ? "" : version / 1000 + "." + version % 1000 / 10;
    }
}
