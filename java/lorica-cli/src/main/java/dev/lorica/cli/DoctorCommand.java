package dev.lorica.cli;

import dev.lorica.CudaInfo;
import dev.lorica.DeviceInfo;
import dev.lorica.Lorica;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;

/** {@code lorica doctor}: what there is to compute with, and why the rest is not there. */
@Command(
        name = "doctor",
        header = "Show the devices, what they can do, and why others are not there.",
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        optionListHeading = "%nOptions:%n",
        footerHeading = "%nExample:%n",
        footer = "  lorica doctor --json")
final class DoctorCommand implements Callable<Integer> {
    private final Terminal terminal;
    private final List<Map<String, Object>> devices = new ArrayList<>();

    @Mixin
    private CommonOptions common;

    DoctorCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("version", Version.lorica());
        json.put("native_version", Lorica.version());
        json.put("java", System.getProperty("java.version"));
        json.put("system", System.getProperty("os.name") + " " + System.getProperty("os.arch"));
        row("lorica", Version.lorica() + ", native library " + Lorica.version());
        row("java", System.getProperty("java.version") + " on " + json.get("system"));
        cpu();
        json.put("cuda", cuda());
        json.put("devices", devices);
        DeviceInfo taken = Lorica.device(ModelConfig.defaults());
        json.put("auto", taken.name());
        json.put("auto_reason", taken.reason());
        row("auto", "takes " + taken.name() + (taken.reason().isEmpty() ? "" : "; " + taken.reason()));
        if (terminal.json()) {
            terminal.printJson(json);
        }
        return ExitCode.OK;
    }

    private void cpu() {
        DeviceInfo info = Lorica.device(new ModelConfig("cpu", Precision.AUTO, 0));
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("device", info.name());
        json.put("detail", info.detail());
        json.put("available_memory", info.availableMemory());
        json.put("peak_flops", info.peakFlops());
        devices.add(json);
        row(
                info.name(),
                info.detail() + "; " + Format.bytes(info.availableMemory()) + " free; products up to "
                        + Format.fixed(info.peakFlops() / 1e9, 0) + " GFLOP/s");
    }

    private Map<String, Object> cuda() {
        CudaInfo cuda = Lorica.cuda();
        Optional<NvidiaDriver> driver = NvidiaDriver.read();
        String version = driver.map(NvidiaDriver::version).orElse("");
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("driver", version);
        json.put("driver_version", cuda.driverVersion());
        json.put("runtime_version", cuda.runtimeVersion());
        json.put("problem", cuda.problem());
        json.put("remedy", cuda.remedy());

        List<String> versions = new ArrayList<>();
        if (!version.isEmpty() || !cuda.driverVersion().isEmpty()) {
            versions.add("driver" + (version.isEmpty() ? "" : " " + version)
                    + (cuda.driverVersion().isEmpty() ? "" : " for CUDA " + cuda.driverVersion()));
        }
        if (!cuda.runtimeVersion().isEmpty()) {
            versions.add("GPU library with the runtime of CUDA " + cuda.runtimeVersion());
        }
        if (cuda.problem().isEmpty()) {
            row("cuda", String.join(", ", versions));
            cuda.gpus().forEach(gpu -> gpu(gpu, driver.flatMap(d -> d.gpu(gpu.pciBusId()))));
        } else {
            row("cuda", "not there: " + cuda.problem());
            row("", "→ " + cuda.remedy());
            if (!versions.isEmpty()) {
                row("", String.join(", ", versions));
            }
            driver.ifPresent(d -> d.gpus().forEach(gpu -> unusable(gpu, cuda.problem())));
        }
        return json;
    }

    private void gpu(CudaInfo.Gpu gpu, Optional<NvidiaDriver.Gpu> seen) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("device", gpu.device());
        json.put("name", gpu.name());
        json.put("pci_bus_id", gpu.pciBusId());
        json.put("compute_capability", gpu.computeCapability());
        json.put("total_memory", gpu.totalMemory());
        json.put("available_memory", gpu.usable() ? gpu.freeMemory() : null);
        json.put("usable", gpu.usable());
        json.put("problem", gpu.problem());
        json.put("remedy", gpu.remedy());
        devices.add(json);
        String memory = gpu.usable()
                ? Format.bytes(gpu.freeMemory()) + " free of " + Format.bytes(gpu.totalMemory())
                : Format.bytes(gpu.totalMemory());
        row(
                gpu.device(),
                gpu.name() + ", compute capability " + gpu.computeCapability() + "; " + memory + "; "
                        + (gpu.usable() ? "can be used" : "cannot be used: " + gpu.problem()));
        if (!gpu.usable()) {
            row("", "→ " + gpu.remedy());
        }
        seen.ifPresent(more -> processes(more, json));
    }

    /** A GPU that only the driver shows. */
    private void unusable(NvidiaDriver.Gpu gpu, String problem) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("device", null);
        json.put("name", gpu.name());
        json.put("pci_bus_id", gpu.pciBusId());
        json.put("compute_capability", gpu.computeCapability());
        json.put("total_memory", gpu.totalMemory());
        json.put("available_memory", gpu.freeMemory());
        json.put("usable", false);
        json.put("problem", problem);
        devices.add(json);
        row(
                "",
                gpu.name() + ", compute capability " + gpu.computeCapability() + "; " + Format.bytes(gpu.freeMemory())
                        + " free of " + Format.bytes(gpu.totalMemory()));
        processes(gpu, json);
    }

    private void processes(NvidiaDriver.Gpu gpu, Map<String, Object> json) {
        json.put(
                "processes",
                gpu.processes().stream()
                        .map(process ->
                                Map.of("pid", process.pid(), "name", process.name(), "memory", process.memory()))
                        .toList());
        if (!gpu.processes().isEmpty()) {
            row(
                    "",
                    "in use by "
                            + gpu.processes().stream()
                                    .map(DoctorCommand::inWords)
                                    .collect(Collectors.joining(", ")));
        }
    }

    private static String inWords(NvidiaDriver.Process process) {
        String name = process.name().isEmpty() ? "process" : process.name();
        return name + " (" + process.pid() + (process.memory() > 0 ? ", " + Format.bytes(process.memory()) : "") + ")";
    }

    private void row(String name, String text) {
        if (!terminal.json()) {
            terminal.out().println(String.format("%-8s %s", name, text));
        }
    }
}
