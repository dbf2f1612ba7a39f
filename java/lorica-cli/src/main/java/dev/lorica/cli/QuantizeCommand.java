package dev.lorica.cli;

import dev.lorica.convert.ModelFiles;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code lorica quantize}: a model in fewer bits. */
@Command(
        name = "quantize",
        header = "Write a model in fewer bits, with the types that llama.cpp gives each tensor.",
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica quantize INPUT OUTPUT --type TYPE",
        optionListHeading = "%nOptions:%n",
        parameterListHeading = "%n",
        footerHeading = "%nExamples:%n",
        footer = {"  lorica quantize llama-f16.gguf llama-q4_k_m.gguf --type Q4_K_M"})
final class QuantizeCommand implements Callable<Integer> {
    private final Terminal terminal;

    @Parameters(
            index = "0",
            paramLabel = "INPUT",
            description = "A GGUF model, best in F32, F16 or BF16" + HubFiles.OR_HUB + ".")
    private Path input;

    @Parameters(index = "1", paramLabel = "OUTPUT", description = "The GGUF file to write.")
    private Path output;

    @Option(
            names = "--type",
            paramLabel = "TYPE",
            description =
                    "Q4_K_M, Q5_K_M, Q6_K, Q8_0, Q4_0, F16 or another type of ggml's or llama.cpp's. Default: ${DEFAULT-VALUE}")
    private String type = "Q4_K_M";

    @Option(
            names = {"-t", "--threads"},
            paramLabel = "N",
            description = "Threads; 0: all cores. Does not change the result. Default: 0")
    private int threads;

    @ArgGroup(exclusive = false, validate = false, heading = "%nOther:%n")
    private CommonOptions common = new CommonOptions();

    QuantizeCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        long start = System.nanoTime();
        Path source = HubFiles.model(terminal, input);
        ModelFiles.quantize(source, output, type, threads);
        double seconds = (System.nanoTime() - start) / 1e9;
        long before = HubFiles.bytes(source);
        long after = HubFiles.bytes(output);
        terminal.out()
                .println("Saved " + terminal.bold(output.toString()) + ": " + Format.bytes(before) + " → "
                        + Format.bytes(after) + " in " + Format.seconds(seconds));
        if (terminal.json()) {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("output", output.toString());
            json.put("type", type);
            json.put("bytes_before", before);
            json.put("bytes", after);
            json.put("seconds", seconds);
            terminal.printJson(json);
        }
        return ExitCode.OK;
    }
}
