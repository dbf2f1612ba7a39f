package dev.lorica.cli;

import dev.lorica.convert.HuggingFaceConverter;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code lorica convert}: a GGUF file from a Hugging Face folder. */
@Command(
        name = "convert",
        header = "Make a GGUF file from a model as Hugging Face publishes it.",
        description = {
            "",
            "Reads config.json, model.safetensors (in one piece or several), and tokenizer.json, tokenizer.model or vocab.txt. The "
                    + "file has the vocabulary and the chat template in it, and is laid out as llama.cpp's converter does it. "
                    + "Settings that cannot be kept are refused by name."
        },
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica convert DIR OUTPUT [--type TYPE]",
        optionListHeading = "%nOptions:%n",
        parameterListHeading = "%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica convert hf:HuggingFaceTB/SmolLM2-135M-Instruct smollm2-f16.gguf",
            "  lorica convert SmolLM2-135M-Instruct smollm2-f16.gguf",
            "  lorica convert SmolLM2-135M-Instruct smollm2-q4.gguf --type Q4_K_M"
        })
final class ConvertCommand implements Callable<Integer> {
    private final Terminal terminal;

    @Parameters(
            index = "0",
            paramLabel = "DIR",
            description = "Folder with config.json and model.safetensors" + HubFiles.OR_HUB + ".")
    private Path input;

    @Parameters(index = "1", paramLabel = "OUTPUT", description = "The GGUF file to write.")
    private Path output;

    @Option(
            names = "--type",
            paramLabel = "TYPE",
            description =
                    "F16, BF16, F32, Q8_0, Q4_K_M or another type of ggml's or llama.cpp's. Default: ${DEFAULT-VALUE}")
    private String type = "F16";

    @Option(names = "--overwrite", description = "Replace OUTPUT if it is there already.")
    private boolean overwrite;

    @Mixin
    private CommonOptions common = new CommonOptions();

    ConvertCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        long start = System.nanoTime();
        Path source = HubFiles.folder(terminal, input);
        try (OutputFile file = OutputFile.prepare(output, overwrite, new Inputs().add(source))) {
            HuggingFaceConverter.convert(source, output, type);
        }
        double seconds = (System.nanoTime() - start) / 1e9;
        long bytes = HubFiles.bytes(output);
        terminal.out()
                .println("Saved " + terminal.bold(output.toString()) + ", " + Format.bytes(bytes) + ", in "
                        + Format.seconds(seconds));
        if (terminal.json()) {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("output", output.toString());
            json.put("type", type);
            json.put("bytes", bytes);
            json.put("seconds", seconds);
            terminal.printJson(json);
        }
        return ExitCode.OK;
    }
}
