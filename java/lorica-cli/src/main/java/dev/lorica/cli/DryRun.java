package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.data.DataReport;
import dev.lorica.data.Example;
import dev.lorica.data.Lengths;
import dev.lorica.train.IntervalStrategy;
import dev.lorica.train.MemoryPlan;
import dev.lorica.train.TrainingConfig;
import dev.lorica.train.TrainingPlan;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What a run would do, in sentences for people and as JSON for a page. */
record DryRun(Model base, Adapter adapter, TrainingData data, TrainingPlan plan) {
    private static final int COLUMNS = 24;

    /** One sentence or two each. */
    List<String> words() {
        TrainingConfig config = plan.config();
        DataReport report = data.report();
        List<String> words = new ArrayList<>();
        long trainable = adapter.info().parameters();
        long all = TrainingReport.allParameters(adapter, base.info());
        words.add("It trains " + Format.shortCount(trainable) + " numbers, "
                + Format.fixed(100.0 * trainable / all, 2) + " % as many as the model and they have together ("
                + Format.shortCount(all) + ").");
        int examples = config.batchSize() * config.gradientAccumulationSteps();
        words.add("It takes " + Format.count(plan.totalSteps(), "step") + " of " + Format.count(examples, "example")
                + ", " + Format.count(plan.stepsPerEpoch()) + " for each pass over the "
                + Format.count(report.examples(), "example") + ".");
        if (report.trainedTokens() > 0) {
            words.add("A pass has " + Format.count(report.tokens(), "token") + "; "
                    + Format.percent(report.trainedTokens(), report.tokens())
                    + " of them are learned, the rest is only read.");
        }
        if (report.overLong() > 0) {
            words.add(Format.count(report.overLong(), "example")
                    + (report.overLong() == 1 ? " is" : " are") + " longer than " + report.maxLength() + " tokens; "
                    + Format.count(report.truncated()) + " of them are cut, " + Format.count(report.dropped())
                    + " left out.");
        }
        if (report.empty() > 0) {
            words.add(Format.count(report.empty(), "record") + " without an answer "
                    + (report.empty() == 1 ? "is" : "are") + " left out.");
        }
        words.add(measured(config));
        words.add("The learning rate is " + Format.scientific(config.learningRate())
                + " at its highest, and then goes the way that is called " + config.schedulerType() + ".");
        words.add(memory(plan.memory()));
        return words;
    }

    private String measured(TrainingConfig config) {
        if (data.held() == null) {
            return "Nothing is held out, so nothing will say whether it learns or only repeats; --eval-split 0.1 holds"
                    + " a tenth out.";
        }
        return "It is measured on " + Format.count(data.held().report().examples(), "example")
                + " that it does not learn, before, at the end"
                + (config.evalStrategy() == IntervalStrategy.NO
                        ? "."
                        : config.evalStrategy() == IntervalStrategy.EPOCH
                                ? " and after each pass."
                                : " and every " + Format.count(config.evalSteps(), "step") + ".");
    }

    private static String memory(MemoryPlan memory) {
        return "It needs " + Format.bytes(memory.total()) + " of the " + Format.bytes(memory.available())
                + " of memory that can be had: "
                + (memory.fits() ? "it fits" : "it does not fit")
                + (memory.recomputedLayers() > 0
                        ? "; to save some, " + Format.count(memory.recomputedLayers(), "layer")
                                + " are computed twice, which takes longer."
                        : memory.fits() ? "." : "; a smaller batch or shorter examples need less.");
    }

    /** @param shown so many examples, token by token */
    Map<String, Object> json(int shown) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("status", "planned");
        json.put("words", words());
        json.put("fits", plan.memory().fits());
        json.put("steps", plan.totalSteps());
        json.put("steps_per_epoch", plan.stepsPerEpoch());
        json.put("trainable_params", adapter.info().parameters());
        json.put("all_params", TrainingReport.allParameters(adapter, base.info()));
        Map<String, Object> memory = new LinkedHashMap<>(TrainingReport.parts(plan.memory()));
        memory.put("total", plan.memory().total());
        memory.put("available", plan.memory().available());
        memory.put("recomputed_layers", plan.memory().recomputedLayers());
        json.put("planned_memory_bytes", memory);
        json.put("data", TrainingReport.json(data.report()));
        json.put(
                "eval_data",
                data.held() == null ? null : TrainingReport.json(data.held().report()));
        json.put("lengths", lengths(data.report().lengths()));
        List<Map<String, Object>> examples = new ArrayList<>();
        for (int i = 0; i < Math.min(shown, data.examples().size()); i++) {
            examples.add(example(data.examples().examples().get(i)));
        }
        json.put("examples", examples);
        return json;
    }

    private static List<Map<String, Object>> lengths(Lengths lengths) {
        List<Map<String, Object>> columns = new ArrayList<>();
        if (lengths == null) {
            return columns;
        }
        int step = Math.max(1, (lengths.longest() + COLUMNS) / COLUMNS);
        for (int from = 0; from <= lengths.longest(); from += step) {
            Map<String, Object> column = new LinkedHashMap<>();
            column.put("from", from);
            column.put("to", from + step - 1);
            column.put("examples", lengths.between(from, from + step));
            columns.add(column);
        }
        return columns;
    }

    private Map<String, Object> example(Example example) {
        List<Map<String, Object>> tokens = new ArrayList<>();
        for (int i = 0; i < example.length(); i++) {
            Map<String, Object> token = new LinkedHashMap<>();
            int id = example.ids()[i];
            token.put("id", id);
            String text = base.tokenizer().isControl(id)
                    ? base.tokenizer().tokenText(id)
                    : new String(base.tokenizer().tokenBytes(id), StandardCharsets.UTF_8);
            token.put("text", text);
            token.put("control", base.tokenizer().isControl(id));
            token.put("learned", i > 0 && example.trained()[i]);
            tokens.add(token);
        }
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("length", example.length());
        json.put("learned", example.trainedTokens());
        json.put("tokens", tokens);
        return json;
    }
}
