package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.convert.ModelFiles;
import dev.lorica.data.DataConfig;
import dev.lorica.data.Dataset;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluation;
import dev.lorica.eval.Evaluator;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code lorica merge}: a model with an adapter folded in. */
@Command(
        name = "merge",
        header = "Write a model with an adapter folded in, for programs that know no adapters.",
        description = {
            "",
            "Merging into few bits can lose what was learned: --eval-data measures how much, on examples that were not"
                    + " trained on."
        },
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica merge --model FILE --adapter DIR --output FILE [OPTION]…",
        optionListHeading = "%nOptions:%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica merge --model llama.gguf --adapter my-adapter --output merged.gguf",
            "  lorica merge --model llama.gguf --adapter my-adapter --output merged.gguf \\",
            "      --type Q4_K_M --eval-data held-out.json"
        })
final class MergeCommand implements Callable<Integer> {
    private static final int EVAL_BATCH = 8;

    private final Terminal terminal;

    @Spec
    private CommandSpec spec;

    @Option(
            names = {"-m", "--model"},
            required = true,
            paramLabel = "FILE",
            description = "The GGUF model" + HubFiles.OR_HUB + ".")
    private Path model;

    @Option(
            names = {"-a", "--adapter"},
            required = true,
            paramLabel = "DIR|FILE[:SCALE]",
            description = "The adapter trained on it. " + AdapterName.DESCRIPTION)
    private List<String> adapters;

    @Option(
            names = {"-o", "--output"},
            required = true,
            paramLabel = "FILE",
            description = "The GGUF file to write.")
    private Path output;

    @Option(names = "--overwrite", description = "Replace the file if it is there already.")
    private boolean overwrite;

    @Option(
            names = "--type",
            paramLabel = "TYPE",
            description =
                    "F32, F16, BF16, Q8_0, Q4_K_M or another type of ggml's or llama.cpp's. Default: each tensor as in"
                            + " the model, what the adapter changes in F16")
    private String type;

    @Option(
            names = {"-d", "--eval-data"},
            paramLabel = "FILE",
            description = "Examples to compare on: the model with the adapter, and the new file.")
    private Path evalData;

    @Mixin
    private DataOptions dataOptions = new DataOptions();

    @Mixin
    private DeviceOptions device = new DeviceOptions();

    @Mixin
    private CommonOptions common = new CommonOptions();

    MergeCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        if (evalData == null) {
            GivenOptions.refuse(spec, GivenOptions.names(spec, dataOptions), "is for --eval-data");
        }
        Map<String, Object> json = new LinkedHashMap<>();
        Path modelFile = HubFiles.model(terminal, model);
        Inputs inputs = new Inputs().add(modelFile).add(evalData);
        AdapterName.paths(terminal, adapters).forEach(inputs::add);
        // Before a model is loaded for it, and again before it is written.
        OutputFile.prepare(output, overwrite, inputs).close();
        try (Model base = AdapterName.base(terminal, modelFile, device.config(), adapters);
                Adapter tuned = AdapterName.load(terminal, base, adapters)) {
            HubFiles.fetchData(terminal, evalData == null ? List.of() : List.of(evalData));
            Dataset records = evalData == null ? null : dataOptions.load(evalData);
            DataConfig dataConfig = dataConfig(base, tuned);
            long start = System.nanoTime();
            try (OutputFile file = OutputFile.prepare(output, overwrite, inputs)) {
                ModelFiles.merge(tuned, output, type);
            }
            double seconds = (System.nanoTime() - start) / 1e9;
            long bytes = HubFiles.bytes(output);
            terminal.out()
                    .println("Saved " + terminal.bold(output.toString()) + ", " + Format.bytes(bytes) + ", in "
                            + Format.seconds(seconds));
            json.put("output", output.toString());
            json.put("bytes", bytes);
            json.put("seconds", seconds);
            if (records != null) {
                TokenizedDataset examples = TokenizedDataset.of(records, base.tokenizer(), dataConfig);
                Evaluation live = new Evaluator(base, tuned).evaluate(examples, EVAL_BATCH);
                Evaluation untrained = new Evaluator(base, null).evaluate(examples, EVAL_BATCH);
                Evaluation merged;
                try (Model result = Model.load(output, device.config())) {
                    merged = new Evaluator(result, null).evaluate(examples, EVAL_BATCH);
                }
                compare(untrained, live, merged, json);
            }
        }
        if (terminal.json()) {
            terminal.printJson(json);
        }
        return ExitCode.OK;
    }

    private DataConfig dataConfig(Model base, Adapter tuned) {
        DataConfig given = dataOptions.config(base);
        return given.template() != null || tuned.template() == null ? given : given.withTemplate(tuned.template());
    }

    private void compare(Evaluation untrained, Evaluation live, Evaluation merged, Map<String, Object> json) {
        double change = merged.loss() / live.loss() - 1;
        double learned = untrained.loss() - live.loss();
        terminal.out().println("  loss on " + evalData + ", " + Format.count(live.trainedTokens(), "token") + ":");
        terminal.out().println("    model alone         " + Format.fixed(untrained.loss(), 4));
        terminal.out().println("    model with adapter  " + Format.fixed(live.loss(), 4));
        terminal.out()
                .println("    merged file         " + Format.fixed(merged.loss(), 4) + "  ("
                        + String.format("%+.3f", 100 * change) + " %)");
        if (learned > 0 && merged.loss() - live.loss() > 0.1 * learned) {
            terminal.err()
                    .println("warning: merging lost " + Math.round(100 * (merged.loss() - live.loss()) / learned)
                            + " % of what was learned; a larger --type, such as Q8_0 or F16, keeps more");
        }
        json.put("eval_tokens", live.trainedTokens());
        json.put("base_loss", untrained.loss());
        json.put("adapter_loss", live.loss());
        json.put("merged_loss", merged.loss());
    }
}
