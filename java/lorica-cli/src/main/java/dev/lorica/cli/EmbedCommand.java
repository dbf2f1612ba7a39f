package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.eval.Embedder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code lorica embed}: texts in, vectors out. */
@Command(
        name = "embed",
        header = "Make a vector of each text, so that texts of like meaning lie near each other.",
        description = {
            "",
            "Reads a text per line, or JSON objects with a field text, from FILE or standard input, and writes a JSON"
                    + " array for each as it comes."
        },
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        optionListHeading = "%nOptions:%n",
        parameterListHeading = "%n",
        footerHeading = "%nExamples:%n",
        footer = {"  lorica embed --model minilm.gguf sentences.txt"})
final class EmbedCommand implements Callable<Integer> {
    private final Terminal terminal;

    @Mixin
    private TextInputOptions input = new TextInputOptions();

    @Option(
            names = {"-a", "--adapter"},
            paramLabel = "DIR|FILE",
            description = "An adapter on it.")
    private Path adapter;

    @Option(
            names = "--pooling",
            paramLabel = "WAY",
            description =
                    "mean (of all tokens), cls (the first) or last. Default: what the file says, else the mean of an"
                            + " encoder's and the last of another model's.")
    private String pooling;

    @Option(
            names = "--normalize",
            negatable = true,
            defaultValue = "true",
            fallbackValue = "true",
            description = "Give vectors the length 1, so that their products are cosines. Default: yes")
    private boolean normalize;

    @Mixin
    private DeviceOptions device = new DeviceOptions();

    @Mixin
    private CommonOptions common = new CommonOptions();

    EmbedCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        Embedder.Pooling asked = pooling == null ? null : Choices.of("--pooling", pooling, Embedder.Pooling.class);
        try (Model base = AdapterName.baseOf(
                        terminal,
                        input.model,
                        device.config(),
                        adapter == null ? List.of() : List.of(HubFiles.adapter(terminal, adapter)));
                Adapter tuned = adapter == null ? null : Adapter.load(base, HubFiles.adapter(terminal, adapter));
                Embedder embedder = new Embedder(base, tuned)) {
            Embedder.Pooling way = asked != null ? asked : Embedder.Pooling.of(base);
            List<float[]> all = new ArrayList<>();
            input.each(terminal, null, lines -> show(embedder.embed(lines.texts(), way, normalize), all));
            if (terminal.json()) {
                terminal.printJson(Map.of("pooling", way.toString(), "embeddings", all));
            }
        }
        return ExitCode.OK;
    }

    private void show(List<float[]> vectors, List<float[]> all) {
        if (terminal.json()) {
            all.addAll(vectors);
            return;
        }
        for (float[] vector : vectors) {
            StringBuilder line = new StringBuilder("[");
            for (int i = 0; i < vector.length; i++) {
                line.append(i == 0 ? "" : ",").append(vector[i]);
            }
            terminal.out().println(line.append(']'));
        }
        terminal.out().flush();
    }
}
