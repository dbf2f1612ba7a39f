package dev.lorica.internal;

import static dev.lorica.internal.Status.check;

import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_cuda_device_info;
import dev.lorica.internal.c.lorica_cuda_info;
import dev.lorica.internal.c.lorica_device_info;
import dev.lorica.internal.c.lorica_model_params;
import java.util.ArrayList;
import java.util.List;
import org.bytedeco.javacpp.BytePointer;

/** The native library's version, and what it can compute on. */
public final class NativeDevices {
    private NativeDevices() {}

    public static String version() {
        NativeLibrary.load();
        return Text.of(Lorica.lorica_version());
    }

    /** What becomes of a device's description. */
    public interface Device<R> {
        R of(String name, String detail, String reason, long availableMemory, double peakFlops);
    }

    /** @param precision one of the constants of {@link NativeModel} */
    public static <R> R device(String name, int precision, int threads, Device<R> device) {
        NativeLibrary.load();
        try (BytePointer on = Text.copy("the device", name);
                lorica_model_params params = Structs.defaults(
                        lorica_model_params::new,
                        lorica_model_params::struct_size,
                        Lorica::lorica_model_default_params);
                lorica_device_info info = Structs.sized(lorica_device_info::new, lorica_device_info::struct_size)) {
            params.device(on).precision(precision).n_threads(threads);
            NativeLibrary.reserveHeap();
            check(Lorica.lorica_device_probe(params, info));
            return device.of(
                    Text.of(info.name()),
                    Text.of(info.detail()),
                    Text.of(info.reason()),
                    info.available_memory(),
                    info.peak_flops());
        }
    }

    /** What becomes of a description of CUDA on this machine. */
    public interface Cuda<R, G> {
        R of(int driverVersion, int runtimeVersion, String problem, String remedy, List<G> gpus);
    }

    /** What becomes of a GPU's description. */
    public interface Gpu<G> {
        G of(
                int index,
                String name,
                String pciBusId,
                int computeMajor,
                int computeMinor,
                long totalMemory,
                long freeMemory,
                String problem,
                String remedy);
    }

    public static <R, G> R cuda(Cuda<R, G> cuda, Gpu<G> gpu) {
        NativeLibrary.load();
        try (lorica_cuda_info info = Structs.sized(lorica_cuda_info::new, lorica_cuda_info::struct_size)) {
            check(Lorica.lorica_cuda_probe(info));
            List<G> gpus = new ArrayList<>();
            for (int i = 0; i < info.n_devices(); i++) {
                gpus.add(gpu(i, gpu));
            }
            return cuda.of(
                    info.driver_version(),
                    info.runtime_version(),
                    Text.of(info.problem()),
                    Text.of(info.remedy()),
                    gpus);
        }
    }

    private static <G> G gpu(int index, Gpu<G> gpu) {
        try (lorica_cuda_device_info info =
                Structs.sized(lorica_cuda_device_info::new, lorica_cuda_device_info::struct_size)) {
            check(Lorica.lorica_cuda_device_probe(index, info));
            return gpu.of(
                    index,
                    Text.of(info.name()),
                    Text.of(info.pci_bus_id()),
                    info.compute_major(),
                    info.compute_minor(),
                    info.total_memory(),
                    info.free_memory(),
                    Text.of(info.problem()),
                    Text.of(info.remedy()));
        }
    }
}
