package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.DataReport;
import dev.lorica.data.Dataset;
import dev.lorica.data.Labels;
import dev.lorica.data.RecordKind;
import dev.lorica.data.TeacherLogProbs;
import dev.lorica.data.TokenizedDataset;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;

/**
 * What a run learns from and is measured on.
 *
 * @param examples  that are learned
 * @param held      {@code null}: there is nothing to evaluate on
 * @param maxLength tokens of an example
 * @param samples   questions that show what is learned: the first of what is evaluated on; none, where nothing is or where there
 *                  are no answers
 * @param lines     what there is to say of it, in order
 */
record TrainingData(
        TokenizedDataset examples,
        TokenizedDataset held,
        int maxLength,
        List<DataRecord> samples,
        List<Consumer<TrainingReport>> lines) {
    private static final int SAMPLES = 2;

    /** The files of a run. {@code evalData}, {@code evalSplit} and {@code maxEvalSamples} may be {@code null}. */
    record Files(List<DataSource> data, Path evalData, Double evalSplit, Integer maxEvalSamples, long seed) {}

    /** @param labels of texts; {@code null}: it is no classifier that is trained */
    static TrainingData load(Files files, DataOptions options, Model base, Labels labels) {
        List<Consumer<TrainingReport>> lines = new ArrayList<>();
        DataConfig config = options.config(base);
        TokenizedDataset examples = labels != null
                ? options.classified(
                        files.data(),
                        base,
                        labels,
                        files.seed(),
                        part -> lines.add(report -> report.data("data", part)))
                : options.examples(
                        files.data(),
                        base.tokenizer(),
                        config,
                        files.seed(),
                        part -> lines.add(report -> report.data("data", part)));
        TokenizedDataset held = null;
        if (files.evalSplit() != null) {
            TokenizedDataset.Split split = examples.split(files.evalSplit(), files.seed());
            examples = split.train();
            held = split.eval();
            DataReport aside = held.report();
            DataReport left = examples.report();
            lines.add(report -> report.part("eval data", aside));
            lines.add(report -> report.part("data left", left));
        } else if (files.evalData() != null) {
            DataConfig same = DataOptions.withTemplate(config, examples.report().template());
            Dataset records = options.load(files.evalData(), files.maxEvalSamples(), "--max-eval-samples");
            held = labels != null
                    ? options.classified(records, base, labels)
                    : options.tokenized(records, base.tokenizer(), same);
            DataReport whole = held.report();
            lines.add(report -> report.data("eval data", whole));
        }
        List<DataRecord> samples = List.of();
        if (held != null && options.records == RecordKind.ANSWERS) {
            Path asked = files.evalData() != null
                    ? files.evalData()
                    : files.data().get(0).path();
            samples = options.load(asked).head(SAMPLES).stream()
                    .filter(record -> !record.isText())
                    .toList();
        }
        TokenizedDataset learned = examples;
        lines.add(report -> report.weights("weights", learned));
        if (held != null) {
            TokenizedDataset measured = held;
            lines.add(report -> report.weights("eval weights", measured));
        }
        if (labels != null) {
            Map<String, Long> counts = examples.classCounts(labels);
            lines.add(report -> report.classes(labels, counts));
        }
        return new TrainingData(examples, held, config.maxLength(), samples, lines);
    }

    /** With what a teacher says of it; {@code ofHeld} is {@code null} where nothing is evaluated on. */
    TrainingData withTeacher(TeacherLogProbs ofExamples, TeacherLogProbs ofHeld) {
        return new TrainingData(
                examples.withTeacher(ofExamples),
                held == null ? null : held.withTeacher(ofHeld),
                maxLength,
                samples,
                lines);
    }

    DataReport report() {
        return examples.report();
    }

    void describe(TrainingReport report) {
        lines.forEach(line -> line.accept(report));
    }
}
