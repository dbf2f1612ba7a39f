package dev.lorica.cli;

import static org.bytedeco.cuda.global.nvml.NVML_SUCCESS;
import static org.bytedeco.cuda.global.nvml.nvmlDeviceGetComputeRunningProcesses_v3;
import static org.bytedeco.cuda.global.nvml.nvmlDeviceGetCount_v2;
import static org.bytedeco.cuda.global.nvml.nvmlDeviceGetCudaComputeCapability;
import static org.bytedeco.cuda.global.nvml.nvmlDeviceGetHandleByIndex_v2;
import static org.bytedeco.cuda.global.nvml.nvmlDeviceGetMemoryInfo;
import static org.bytedeco.cuda.global.nvml.nvmlDeviceGetName;
import static org.bytedeco.cuda.global.nvml.nvmlDeviceGetPciInfo_v3;
import static org.bytedeco.cuda.global.nvml.nvmlInit_v2;
import static org.bytedeco.cuda.global.nvml.nvmlShutdown;
import static org.bytedeco.cuda.global.nvml.nvmlSystemGetDriverVersion;
import static org.bytedeco.cuda.global.nvml.nvmlSystemGetProcessName;

import java.io.IOException;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import org.bytedeco.cuda.global.nvml;
import org.bytedeco.cuda.nvml.nvmlDevice_st;
import org.bytedeco.cuda.nvml.nvmlMemory_t;
import org.bytedeco.cuda.nvml.nvmlPciInfo_t;
import org.bytedeco.cuda.nvml.nvmlProcessInfo_v2_t;
import org.bytedeco.javacpp.Loader;

/** The only class that touches {@code org.bytedeco:cuda}; loading it fails where that is missing. */
final class Nvml {
    private static final String LOAD_LIBRARIES = "org.bytedeco.javacpp.loadLibraries";
    private static final int TEXT = 256;
    private static final int MOST_PROCESSES = 64;
    /** NVML_VALUE_NOT_AVAILABLE */
    private static final long NOT_AVAILABLE = -1;

    private Nvml() {}

    /**
     * The classes of the bindings would load those of the CUDA runtime too, which needs the toolkit. The driver's library alone is
     * loaded here, before them.
     */
    static Optional<NvidiaDriver> read() throws IOException {
        URL library = nvml.class.getResource("/org/bytedeco/cuda/" + Loader.getPlatform() + "/libjninvml.so");
        if (library == null) {
            return Optional.empty();
        }
        String before = System.getProperty(LOAD_LIBRARIES);
        System.setProperty(LOAD_LIBRARIES, "false");
        try {
            System.load(Loader.cacheResource(library).getAbsolutePath());
            return ask();
        } finally {
            if (before == null) {
                System.clearProperty(LOAD_LIBRARIES);
            } else {
                System.setProperty(LOAD_LIBRARIES, before);
            }
        }
    }

    private static Optional<NvidiaDriver> ask() {
        if (nvmlInit_v2() != NVML_SUCCESS) {
            return Optional.empty();
        }
        try {
            byte[] version = new byte[TEXT];
            int[] count = new int[1];
            if (nvmlSystemGetDriverVersion(version, TEXT) != NVML_SUCCESS
                    || nvmlDeviceGetCount_v2(count) != NVML_SUCCESS) {
                return Optional.empty();
            }
            List<NvidiaDriver.Gpu> gpus = new ArrayList<>();
            for (int i = 0; i < count[0]; i++) {
                nvmlDevice_st device = new nvmlDevice_st();
                if (nvmlDeviceGetHandleByIndex_v2(i, device) == NVML_SUCCESS) {
                    gpus.add(gpu(device));
                }
            }
            return Optional.of(new NvidiaDriver(text(version), gpus));
        } finally {
            nvmlShutdown();
        }
    }

    private static NvidiaDriver.Gpu gpu(nvmlDevice_st device) {
        byte[] name = new byte[TEXT];
        nvmlDeviceGetName(device, name, TEXT);
        int[] major = new int[1];
        int[] minor = new int[1];
        nvmlDeviceGetCudaComputeCapability(device, major, minor);
        try (nvmlPciInfo_t pci = new nvmlPciInfo_t();
                nvmlMemory_t memory = new nvmlMemory_t()) {
            String bus = nvmlDeviceGetPciInfo_v3(device, pci) == NVML_SUCCESS
                    ? pci.busId().getString()
                    : "";
            boolean known = nvmlDeviceGetMemoryInfo(device, memory) == NVML_SUCCESS;
            return new NvidiaDriver.Gpu(
                    text(name),
                    bus,
                    major[0] + "." + minor[0],
                    known ? memory.total() : 0,
                    known ? memory._free() : 0,
                    processes(device));
        }
    }

    private static List<NvidiaDriver.Process> processes(nvmlDevice_st device) {
        List<NvidiaDriver.Process> processes = new ArrayList<>();
        int[] count = {MOST_PROCESSES};
        try (nvmlProcessInfo_v2_t infos = new nvmlProcessInfo_v2_t(MOST_PROCESSES)) {
            if (nvmlDeviceGetComputeRunningProcesses_v3(device, count, infos) != NVML_SUCCESS) {
                return processes;
            }
            for (int i = 0; i < count[0]; i++) {
                nvmlProcessInfo_v2_t info = infos.position(i);
                byte[] name = new byte[TEXT];
                boolean named = nvmlSystemGetProcessName(info.pid(), name, TEXT) == NVML_SUCCESS;
                long memory = info.usedGpuMemory() == NOT_AVAILABLE ? 0 : info.usedGpuMemory();
                processes.add(
                        new NvidiaDriver.Process(Integer.toUnsignedLong(info.pid()), named ? text(name) : "", memory));
            }
            infos.position(0);
        }
        return processes;
    }

    private static String text(byte[] text) {
        int length = 0;
        while (length < text.length && text[length] != 0) {
            length++;
        }
        return new String(text, 0, length, StandardCharsets.UTF_8);
    }
}
