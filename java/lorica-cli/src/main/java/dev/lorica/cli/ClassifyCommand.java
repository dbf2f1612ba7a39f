package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.eval.TextClassifier;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code lorica classify}: texts in, labels out. */
@Command(
        name = "classify",
        header = "Say what texts are, with a classifier that was trained with train --label-field.",
        description = {
            "",
            "Reads a text per line, or JSON objects with a field text, from FILE or standard input, and writes the"
                    + " label and its probability for each as it comes."
        },
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        optionListHeading = "%nOptions:%n",
        parameterListHeading = "%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica classify --model minilm.gguf --adapter my-classifier --text \"A gem of a film.\"",
            "  lorica classify --model minilm.gguf --adapter my-classifier reviews.txt"
        })
final class ClassifyCommand implements Callable<Integer> {
    private final Terminal terminal;

    @Mixin
    private TextInputOptions input = new TextInputOptions();

    @Option(
            names = {"-a", "--adapter"},
            paramLabel = "DIR|FILE",
            description = "The classifier. Default: that of the model's own file.")
    private Path adapter;

    @Option(
            names = "--text-pair-field",
            paramLabel = "NAME",
            description = "Field with a second text, of a classifier of two.")
    private String textPairField;

    @Option(names = "--all-scores", description = "Write the probability of every label.")
    private boolean allScores;

    @Mixin
    private DeviceOptions device = new DeviceOptions();

    @Mixin
    private CommonOptions common = new CommonOptions();

    ClassifyCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        try (Model base = AdapterName.baseOf(
                        terminal,
                        input.model,
                        device.config(),
                        adapter == null ? List.of() : List.of(HubFiles.adapter(terminal, adapter)));
                Adapter tuned = adapter == null ? null : Adapter.load(base, HubFiles.adapter(terminal, adapter));
                TextClassifier classifier = new TextClassifier(base, tuned)) {
            List<Map<String, Object>> results = new ArrayList<>();
            input.each(
                    terminal,
                    textPairField,
                    lines -> show(classifier, classifier.classify(lines.texts(), lines.seconds()), results));
            if (terminal.json()) {
                terminal.printJson(Map.of("results", results));
            }
        }
        return ExitCode.OK;
    }

    private void show(
            TextClassifier classifier, List<TextClassifier.Classification> all, List<Map<String, Object>> results) {
        List<String> names = classifier.labels().names();
        for (TextClassifier.Classification one : all) {
            if (terminal.json()) {
                Map<String, Object> result = new LinkedHashMap<>();
                result.put(names.isEmpty() ? "value" : "label", names.isEmpty() ? one.probability() : one.label());
                if (!names.isEmpty()) {
                    result.put("probability", one.probability());
                    Map<String, Object> scores = new LinkedHashMap<>();
                    for (int i = 0; i < names.size(); i++) {
                        scores.put(names.get(i), one.probabilities()[i]);
                    }
                    result.put("scores", scores);
                }
                results.add(result);
                continue;
            }
            StringBuilder line = new StringBuilder();
            if (!names.isEmpty()) {
                line.append(one.label()).append('\t');
            }
            line.append(Format.fixed(one.probability(), 4));
            for (int i = 0; allScores && i < names.size(); i++) {
                line.append('\t').append(names.get(i)).append('=').append(Format.fixed(one.probabilities()[i], 4));
            }
            terminal.out().println(line);
        }
        terminal.out().flush();
    }
}
