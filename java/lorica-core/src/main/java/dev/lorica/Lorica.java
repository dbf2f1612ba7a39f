package dev.lorica;

import dev.lorica.internal.NativeLibrary;
import dev.lorica.internal.Status;
import dev.lorica.internal.Text;
import dev.lorica.internal.c.lorica_cuda_device_info;
import dev.lorica.internal.c.lorica_cuda_info;
import dev.lorica.internal.c.lorica_device_info;
import dev.lorica.internal.c.lorica_model_params;
import java.util.ArrayList;
import java.util.List;
import org.bytedeco.javacpp.BytePointer;

/** The library itself. */
public final class Lorica {
    private Lorica() {}

    /** Version of the native library, {@code major.minor.patch}. */
    public static String version() {
        NativeLibrary.load();
        return Text.of(dev.lorica.internal.c.Lorica.lorica_version());
    }

    /**
     * What the device is and can do that a model would be loaded to.
     *
     * @throws dev.lorica.exceptions.LoricaException if it is not there; the message says why
     */
    public static DeviceInfo device(ModelConfig config) {
        NativeLibrary.load();
        try (BytePointer device = Text.copy("the device", config.device());
                lorica_model_params params = dev.lorica.internal.c.Lorica.lorica_model_default_params();
                lorica_device_info info = new lorica_device_info()) {
            params.device(device).precision(Model.precision(config.precision())).n_threads(config.threads());
            Status.check(dev.lorica.internal.c.Lorica.lorica_device_probe(params, info));
            return new DeviceInfo(
                    Text.of(info.name()),
                    Text.of(info.detail()),
                    Text.of(info.reason()),
                    info.available_memory(),
                    info.peak_flops());
        }
    }

    /** The GPUs of this machine and what is needed to use them. Not having any is no error. */
    public static CudaInfo cuda() {
        NativeLibrary.load();
        try (lorica_cuda_info info = new lorica_cuda_info()) {
            Status.check(dev.lorica.internal.c.Lorica.lorica_cuda_probe(info));
            List<CudaInfo.Gpu> gpus = new ArrayList<>();
            for (int i = 0; i < info.n_devices(); i++) {
                gpus.add(gpu(i));
            }
            return new CudaInfo(
                    cudaVersion(info.driver_version()),
                    cudaVersion(info.runtime_version()),
                    Text.of(info.problem()),
                    Text.of(info.remedy()),
                    gpus);
        }
    }

    private static CudaInfo.Gpu gpu(int index) {
        try (lorica_cuda_device_info info = new lorica_cuda_device_info()) {
            Status.check(dev.lorica.internal.c.Lorica.lorica_cuda_device_probe(index, info));
            return new CudaInfo.Gpu(
                    "cuda:" + index,
                    Text.of(info.name()),
                    Text.of(info.pci_bus_id()),
                    info.compute_major() + "." + info.compute_minor(),
                    info.total_memory(),
                    info.free_memory(),
                    Text.of(info.problem()),
                    Text.of(info.remedy()));
        }
    }

    /** 13000 is 13.0. */
    private static String cudaVersion(int version) {
        return version == 0 ? "" : version / 1000 + "." + version % 1000 / 10;
    }
}
