package dev.lorica.cli;

import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.adapter.Adapter;
import dev.lorica.cli.report.ModelCard;
import dev.lorica.exceptions.LoricaException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code lorica export}: an adapter in another format. */
@Command(
        name = "export",
        header = "Write an adapter as Hugging Face PEFT or llama.cpp load it.",
        description = {"", "Reads either format: a folder of PEFT's or of Lorica's, or a GGUF LoRA file."},
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica export --model FILE --adapter DIR --output DIR [OPTION]…",
        optionListHeading = "%nOptions:%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica export -m llama.gguf -a my-adapter --format peft --output my-peft-adapter",
            "  lorica export -m llama.gguf -a peft-adapter --format gguf --output my-adapter"
        })
final class ExportCommand implements Callable<Integer> {
    private final Terminal terminal;

    @Option(
            names = {"-m", "--model"},
            required = true,
            paramLabel = "FILE",
            description = "The GGUF model that it belongs to" + HubFiles.OR_HUB + ".")
    private Path model;

    @Option(
            names = {"-a", "--adapter"},
            required = true,
            paramLabel = "DIR|FILE[:SCALE]",
            description = "The adapter: its folder, or a GGUF LoRA file. " + AdapterName.DESCRIPTION)
    private List<String> adapters;

    @Option(
            names = {"-f", "--format"},
            paramLabel = "FORMAT",
            description = "peft, gguf, or both. Default: ${DEFAULT-VALUE}")
    private String format = "both";

    @Option(
            names = {"-o", "--output"},
            required = true,
            paramLabel = "DIR",
            description = "Folder for the new files.")
    private Path output;

    @Option(names = "--overwrite", description = "Replace an adapter that is in the folder already.")
    private boolean overwrite;

    @Option(
            names = "--base-model-name",
            paramLabel = "NAME",
            description =
                    "What PEFT is to load as the base: a name on the hub or a path. Default: the name in the model's"
                            + " file")
    private String baseModelName;

    @Mixin
    private HubOptions hub = new HubOptions();

    @Mixin
    private CommonOptions common = new CommonOptions();

    ExportCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    /** Says what is known of an adapter that was not trained here. */
    private void writeCard(Adapter tuned, AdapterFormat formats) {
        Model base = tuned.model();
        ObjectNode facts = JsonNodeFactory.instance
                .objectNode()
                .put("name", hub.pushToHub.replaceFirst("^.*/", ""))
                .put("base", base.info().name())
                .put("model", base.file().toString())
                .put("llama_cpp_needs_merge", LlamaCpp.lacks(tuned).isPresent());
        if (!base.addedTokens().isEmpty()) {
            base.addedTokens().forEach(facts.putArray("added_tokens")::add);
            facts.put("vocabulary", base.info().vocabSize());
        }
        ModelCard.write(output, facts, baseModelName, formats != AdapterFormat.PEFT, formats != AdapterFormat.GGUF);
    }

    @Override
    public Integer call() {
        AdapterFormat wanted = Choices.of("--format", format, AdapterFormat.class);
        hub.check();
        Path modelFile = HubFiles.model(terminal, model);
        Inputs inputs = new Inputs().add(modelFile);
        AdapterName.paths(terminal, adapters).forEach(inputs::add);
        wanted.check(output, overwrite, inputs);
        String file;
        try (Model base = AdapterName.base(terminal, modelFile, ModelConfig.defaults(), adapters);
                Adapter tuned = AdapterName.load(terminal, base, adapters)) {
            Optional<String> lacking = LlamaCpp.lacks(tuned);
            if (wanted == AdapterFormat.GGUF && lacking.isPresent()) {
                throw new LoricaException("this adapter cannot be a LoRA file for llama.cpp, which has no "
                        + lacking.get()
                        + (LlamaCpp.canBeFoldedIn(tuned)
                                ? "; lorica merge makes a model of it that llama.cpp runs"
                                : "; nor can it be folded into a model"));
            }
            wanted.of(tuned.info().method(), tuned.labels() != null);
            file = wanted.mainFile(tuned.info().method());
            wanted.write(tuned, output, baseModelName);
            if (hub.pushToHub != null) {
                writeCard(tuned, wanted);
            }
        }
        terminal.out().println("Saved " + terminal.bold(output.resolve(file).toString()));
        hub.push(terminal, output);
        if (terminal.json()) {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("output", output.toString());
            json.put("format", Choices.name(wanted));
            terminal.printJson(json);
        }
        return ExitCode.OK;
    }
}
