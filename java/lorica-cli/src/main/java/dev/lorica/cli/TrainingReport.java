package dev.lorica.cli;

import dev.lorica.ModelInfo;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.Method;
import dev.lorica.data.DataReport;
import dev.lorica.data.Labels;
import dev.lorica.data.PairReport;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.train.MemoryPlan;
import dev.lorica.train.TrainingPlan;
import java.io.PrintStream;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What {@code lorica train} says before the first step: the model, the data, the memory. */
final class TrainingReport {
    private static final int SHOWN_EXAMPLE = 700;

    private final Terminal terminal;
    private final PrintStream out;

    TrainingReport(Terminal terminal) {
        this.terminal = terminal;
        this.out = terminal.out();
    }

    void model(ModelInfo model) {
        row(
                "model",
                (model.name().isEmpty() ? model.architecture() : model.name()) + ": " + model.fileType() + ", "
                        + Format.shortCount(model.parameters()) + " parameters, " + model.layers() + " layers, context "
                        + Format.count(model.contextLength()));
        row("device", model.deviceInWords());
    }

    /** How many examples there are of each class; the ten largest. */
    void classes(Labels labels, Map<String, Long> counts) {
        if (counts.isEmpty()) {
            row("labels", "numbers (" + labels.problem() + ")");
            return;
        }
        List<String> words = counts.entrySet().stream()
                .sorted(Map.Entry.<String, Long>comparingByValue().reversed())
                .limit(10)
                .map(entry -> entry.getKey() + " " + Format.count(entry.getValue()))
                .toList();
        row("classes", String.join(", ", words) + (counts.size() > 10 ? " and " + (counts.size() - 10) + " more" : ""));
    }

    void data(String title, DataReport data) {
        String name = data.name().isEmpty() ? "" : data.name() + ": ";
        row(
                title,
                name + data.format() + ", " + Format.count(data.records(), "record") + ", fields " + data.fields()
                        + (data.withInput() > 0
                                ? " (" + Format.count(data.withInput()) + " with "
                                        + data.fields().input() + ")"
                                : "")
                        + ", " + DataOptions.templateInWords(data.template()));
        part("", data);
        if (data.overLong() > 0) {
            String fate = data.truncated() == 0
                    ? "left out"
                    : data.dropped() == 0
                            ? "cut, their end is not learned"
                            : Format.count(data.truncated()) + " cut, " + Format.count(data.dropped()) + " left out";
            row(
                    "",
                    Format.count(data.overLong(), "example") + " longer than " + data.maxLength() + " tokens: " + fate
                            + " (--max-length, --overflow)");
        }
        if (data.pairs() != null) {
            pairs(data.pairs());
        } else if (data.empty() > 0) {
            row("", Format.count(data.empty(), "record") + " without a response: left out");
        }
        if (data.unshown() > 0) {
            row(
                    "",
                    Format.count(data.unshown(), "conversation")
                            + " that the template cannot show: left out (--unshown)");
            row("", "the first: " + data.firstUnshown());
        }
        if (data.emptyTurns() > 0) {
            row(
                    "",
                    Format.count(data.emptyTurns(), "turn")
                            + " of the assistant of which the template shows nothing: not learned");
        }
        if (!data.notShown().isEmpty()) {
            List<String> names = new ArrayList<>();
            data.notShown().forEach((what, count) -> names.add(what + " (" + Format.count(count) + ")"));
            row("", "warning: the template does not show " + String.join(", ", names));
        }
        if (!data.unusedFields().isEmpty()) {
            row("", "fields not used: " + String.join(", ", data.unusedFields()));
        }
        if (data.duplicates() > 0) {
            row("", Format.count(data.duplicates(), "example") + " equal to one before: learned again");
        }
        if (data.unstable() > 0) {
            row(
                    "",
                    Format.count(data.unstable(), "conversation")
                            + " became an example for each turn: the template writes a turn "
                            + "otherwise once the conversation has gone on");
        }
        if (data.turnsWithoutEnd() > 0) {
            row(
                    "",
                    "warning: " + Format.count(data.turnsWithoutEnd(), "turn")
                            + " of the assistant end with no token of the "
                            + "model that ends a turn; is it the model's template (--chat-template)?");
        }
        if (!data.endsWithEos()) {
            row("", "the vocabulary has no EOS token, so the end of a response is not learned");
        }
    }

    private void pairs(PairReport pairs) {
        if (pairs.empty() > 0) {
            row(
                    "",
                    Format.count(pairs.empty(), "pair") + " with an empty side: left out; the first: "
                            + pairs.firstEmpty());
        }
        if (pairs.equal() > 0) {
            row(
                    "",
                    Format.count(pairs.equal(), "pair") + " with equal sides: left out; the first: "
                            + pairs.firstEqual());
        }
        if (pairs.cut() > 0) {
            row("", Format.count(pairs.cut(), "pair") + " with a cut side; the first: " + pairs.firstCut());
        }
    }

    /** How much is learned. */
    void part(String title, DataReport data) {
        if (data.trainedTokens() == 0) {
            row(
                    title,
                    Format.count(data.examples(), "prompt") + ", " + Format.count(data.tokens(), "token") + ", longest "
                            + Format.count(data.longest()) + "; answers are drawn while training");
            return;
        }
        row(
                title,
                Format.count(data.examples(), "example") + ", " + Format.count(data.tokens(), "token") + ", longest "
                        + Format.count(data.longest()) + "; trained on: " + Format.count(data.trainedTokens(), "token")
                        + " ("
                        + Format.percent(data.trainedTokens(), data.tokens()) + ")");
    }

    static Map<String, Object> json(DataReport data) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("name", data.name());
        json.put("format", data.format());
        json.put("fields", data.fields().toString());
        json.put("template", data.template().name());
        json.put("records", data.records());
        json.put("examples", data.examples());
        json.put("empty", data.empty());
        json.put("max_length", data.maxLength());
        json.put("over_long", data.overLong());
        json.put("truncated", data.truncated());
        json.put("dropped", data.dropped());
        json.put("duplicates", data.duplicates() < 0 ? null : data.duplicates());
        json.put("unstable_conversations", data.unstable());
        json.put("turns_without_end", data.turnsWithoutEnd());
        json.put("unshown", data.unshown());
        json.put("first_unshown", data.firstUnshown());
        json.put("empty_turns", data.emptyTurns());
        json.put("not_shown", data.notShown());
        json.put("unused_fields", data.unusedFields());
        json.put("longest", data.longest());
        json.put("tokens", data.tokens());
        json.put("trained_tokens", data.trainedTokens());
        if (data.pairs() != null) {
            json.put("equal_pairs", data.pairs().equal());
            json.put("empty_pairs", data.pairs().empty());
            json.put("cut_pairs", data.pairs().cut());
        }
        return json;
    }

    /** The first example, of a pair both sides. */
    void example(DataReport data) {
        if (data.pairs() == null) {
            example(data.sample());
            return;
        }
        example("The better side of a pair", data.sample());
        example("The worse one", data.rejectedSample());
    }

    /** One example as the model sees it; what is trained on stands between ⟦ and ⟧. */
    void example(List<DataReport.Stretch> stretches) {
        example("An example", stretches);
    }

    private void example(String title, List<DataReport.Stretch> stretches) {
        out.println();
        boolean anyTrained = stretches.stream().anyMatch(DataReport.Stretch::trained);
        out.println(title + (anyTrained ? "; ⟦ " + terminal.green("what is trained on") + " ⟧ is marked:" : ":"));
        StringBuilder text = new StringBuilder();
        for (DataReport.Stretch stretch : stretches) {
            String shown = shorten(stretch.text());
            text.append(stretch.trained() ? "⟦" + shown + "⟧" : shown);
        }
        boolean trained = false;
        for (String paragraph : text.toString().split("\n", -1)) {
            for (String line : terminal.wrap(paragraph, 4)) {
                out.println("  " + terminal.faint("│") + " " + coloured(line, trained));
                trained = line.lastIndexOf('⟦') > line.lastIndexOf('⟧') || trained && line.indexOf('⟧') < 0;
            }
        }
        out.println();
    }

    /** A line with what is between the marks in green; {@code open}: a mark was opened on a line before. */
    private String coloured(String line, boolean open) {
        StringBuilder coloured = new StringBuilder();
        int from = 0;
        boolean trained = open;
        while (from < line.length()) {
            int mark = line.indexOf(trained ? '⟧' : '⟦', from);
            int to = mark < 0 ? line.length() : trained ? mark + 1 : mark;
            String run = line.substring(from, to);
            coloured.append(trained && !run.isEmpty() ? terminal.green(run) : run);
            from = to;
            trained = mark < 0 ? trained : !trained;
        }
        return coloured.toString();
    }

    /** PEFT's line. */
    void parameters(Adapter adapter, ModelInfo base) {
        long trainable = adapter.info().parameters();
        long all = allParameters(adapter, base);
        out.println("trainable params: " + Format.count(trainable) + " || all params: " + Format.count(all)
                + " || trainable%: " + Format.fixed(100.0 * trainable / all, 4));
    }

    /** Of the model and what is beside it; copies of its modules that PEFT keeps count again, as they do there. */
    static long allParameters(Adapter adapter, ModelInfo base) {
        Method method = adapter.info().method();
        boolean inPlace = method == Method.FULL || method == Method.BITFIT;
        return base.parameters()
                + adapter.tensors().stream()
                        .filter(tensor -> !(inPlace && tensor.isWhole()))
                        .mapToLong(tensor -> tensor.rows() * tensor.columns())
                        .sum();
    }

    void memory(MemoryPlan memory) {
        Map<String, Long> parts = parts(memory);
        StringBuilder line = new StringBuilder();
        parts.forEach((name, bytes) -> line.append(line.length() == 0 ? "" : " + ")
                .append(name)
                .append(' ')
                .append(Format.bytes(bytes)));
        row(
                "memory",
                Format.bytes(memory.total()) + " planned of " + Format.bytes(memory.available()) + " available"
                        + (memory.recomputedLayers() > 0
                                ? ", " + Format.count(memory.recomputedLayers(), "layer") + " computed again"
                                : ""));
        row("", line.toString());
    }

    static Map<String, Long> parts(MemoryPlan memory) {
        Map<String, Long> parts = new LinkedHashMap<>();
        parts.put("weights", memory.weights());
        parts.put("adapter", memory.adapter());
        parts.put("gradients", memory.gradients());
        parts.put("optimizer", memory.optimizer());
        parts.put("activations", memory.activations());
        parts.put("workspace", memory.workspace());
        return parts;
    }

    void steps(TrainingPlan plan) {
        row(
                "training",
                Format.count(plan.totalSteps(), "step") + ", " + Format.count(plan.stepsPerEpoch())
                        + " per epoch, batch size "
                        + plan.config().batchSize()
                        + (plan.config().gradientAccumulationSteps() > 1
                                ? " × " + plan.config().gradientAccumulationSteps() + " accumulated"
                                : "")
                        + ", learning rate " + Format.scientific(plan.config().learningRate()) + " ("
                        + plan.config().schedulerType() + ")");
    }

    /** How much tokens count, where they do not count alike. */
    void weights(String title, TokenizedDataset data) {
        float[] weights = data.weights();
        if (weights != null) {
            row(title, "tokens count " + weights[0] + " to " + weights[1] + "; losses are divided by their sum");
        }
    }

    void row(String title, String text) {
        String heading = terminal.bold(String.format("%-9s", title));
        for (String line : terminal.wrap(text, 10)) {
            out.println(heading + " " + line);
            heading = " ".repeat(9);
        }
    }

    private static String shorten(String text) {
        if (text.length() <= SHOWN_EXAMPLE) {
            return text;
        }
        int half = SHOWN_EXAMPLE / 2;
        return text.substring(0, half) + " […] " + text.substring(text.length() - half);
    }
}
