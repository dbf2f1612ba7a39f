package dev.lorica.cli;

import dev.lorica.convert.ModelFiles;
import dev.lorica.files.GgufFile;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
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
            description = "Q4_K_M, Q5_K_M, Q6_K, Q8_0, Q4_0, F16 or another type of ggml's or llama.cpp's. Default:"
                    + " ${DEFAULT-VALUE}")
    private String type = "Q4_K_M";

    @Option(
            names = {"-t", "--threads"},
            paramLabel = "N",
            description = "Threads; 0: all cores. Does not change the result. Default: 0")
    private int threads;

    @Option(names = "--overwrite", description = "Replace OUTPUT if it is there already.")
    private boolean overwrite;

    @Mixin
    private CommonOptions common = new CommonOptions();

    QuantizeCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        long start = System.nanoTime();
        Path source = HubFiles.model(terminal, input);
        try (OutputFile file = OutputFile.prepare(output, overwrite, new Inputs().add(source))) {
            ModelFiles.quantize(source, output, type, threads);
        }
        double seconds = (System.nanoTime() - start) / 1e9;
        long before = HubFiles.bytes(source);
        long after = HubFiles.bytes(output);
        terminal.out()
                .println("Saved " + terminal.bold(output.toString()) + ": " + Format.bytes(before) + " → "
                        + Format.bytes(after) + " in " + Format.seconds(seconds));
        Types types = types(output, type);
        types.lines().forEach(line -> terminal.out().println("  " + line));
        if (terminal.json()) {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("output", output.toString());
            json.put("type", type);
            json.put("bytes_before", before);
            json.put("bytes", after);
            json.put("seconds", seconds);
            json.put("types", types.counts());
            terminal.printJson(json);
        }
        return ExitCode.OK;
    }

    /**
     * Which tensors of a file got another type than the one that was asked for.
     *
     * @param counts tensors of each type
     * @param lines  the same for people
     */
    record Types(Map<String, Long> counts, List<String> lines) {}

    private static final int BLOCK_OF_K_TYPES = 256;

    /** @param asked for: a type, or a mix of llama.cpp's, which names its main type first */
    static Types types(Path file, String asked) {
        String main = asked.toUpperCase(Locale.ROOT).replaceFirst("(_K)_[SML]$", "$1");
        Map<String, Long> counts = new TreeMap<>();
        Map<String, Map<String, Long>> others = new TreeMap<>();
        long shortRows = 0;
        long rowLength = 0;
        try (GgufFile contents = GgufFile.open(file)) {
            for (GgufFile.Tensor tensor : contents.tensors()) {
                counts.merge(tensor.type(), 1L, Long::sum);
                if (tensor.shape().size() < 2 || tensor.type().equals(main)) {
                    continue;
                }
                String module = tensor.name().replaceFirst("^blk\\.\\d+\\.", "").replaceFirst("\\.weight$", "");
                others.computeIfAbsent(tensor.type(), type -> new TreeMap<>()).merge(module, 1L, Long::sum);
                boolean blocks = main.endsWith("_K") || main.startsWith("IQ") && !main.equals("IQ4_NL");
                if (blocks && tensor.shape().get(0) % BLOCK_OF_K_TYPES != 0) {
                    shortRows++;
                    rowLength = tensor.shape().get(0);
                }
            }
        }
        List<String> lines = new ArrayList<>();
        others.forEach((type, modules) -> lines.add(type + " instead of " + main + ": "
                + modules.entrySet().stream()
                        .map(entry -> (entry.getValue() > 1 ? entry.getValue() + " × " : "") + entry.getKey())
                        .collect(Collectors.joining(", "))));
        if (shortRows > 0) {
            lines.add(Format.count(shortRows, "tensor") + " have rows, such as of " + rowLength
                    + " values, that are no whole number of " + main + "'s blocks of " + BLOCK_OF_K_TYPES);
        }
        return new Types(counts, lines);
    }
}
