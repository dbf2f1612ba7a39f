package dev.lorica.cli;

import dev.lorica.DeviceInfo;
import dev.lorica.Lorica;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.exceptions.LoricaException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
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
        json.put("auto", Lorica.device(ModelConfig.defaults()).name());
        row("lorica", Version.lorica() + ", native library " + Lorica.version());
        row("java", System.getProperty("java.version") + " on " + json.get("system"));
        List<Map<String, Object>> devices = new ArrayList<>();
        for (String name : List.of("cpu", "cuda")) {
            devices.add(device(name));
        }
        json.put("devices", devices);
        row("auto", "takes " + json.get("auto"));
        if (terminal.json()) {
            terminal.printJson(json);
        }
        return ExitCode.OK;
    }

    private Map<String, Object> device(String name) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("device", name);
        try {
            DeviceInfo info = Lorica.device(new ModelConfig(name, Precision.AUTO, 0));
            json.put("detail", info.detail());
            json.put("available_memory", info.availableMemory());
            json.put("peak_flops", info.peakFlops());
            row(
                    name,
                    info.detail() + "; " + Format.bytes(info.availableMemory()) + " free"
                            + (info.peakFlops() > 0
                                    ? "; products up to " + Format.fixed(info.peakFlops() / 1e9, 0) + " GFLOP/s"
                                    : ""));
        } catch (LoricaException e) {
            json.put("missing", e.getMessage());
            row(name, "not there: " + e.getMessage());
        }
        return json;
    }

    private void row(String name, String text) {
        if (!terminal.json()) {
            terminal.out().println(String.format("%-8s %s", name, text));
        }
    }
}
