package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.ModelInfo;
import dev.lorica.adapter.Adapter;
import dev.lorica.cli.report.ReportPage;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.Labels;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.AnswerEvaluation;
import dev.lorica.eval.ClassMetrics;
import dev.lorica.eval.Evaluation;
import dev.lorica.eval.Evaluator;
import dev.lorica.eval.TextClassifier;
import dev.lorica.eval.TextEvaluation;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.files.AtomicFile;
import dev.lorica.generate.GenerationConfig;
import java.io.IOException;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.function.Function;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code lorica eval}: a model measured, with an adapter beside it where there is one. */
@Command(
        name = "eval",
        header = "Measure a model, and an adapter beside it: loss, perplexity, answers.",
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica eval --model FILE [--data FILE] [--text FILE] [OPTION]…",
        optionListHeading = "%nWhat to measure:%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica eval -m llama.gguf -a my-adapter --data held-out.json --answers 40",
            "  lorica eval -m llama.gguf -a my-adapter --data held-out.json --answers 9 --report eval.html",
            "  lorica eval --model llama.gguf --text novel.txt --ctx-size 512"
        })
final class EvalCommand implements Callable<Integer> {
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
            paramLabel = "DIR|FILE[:SCALE]",
            description = "An adapter trained on it; the model is measured without it and with it. "
                    + AdapterName.DESCRIPTION)
    private List<String> adapters = new ArrayList<>();

    @Option(
            names = {"-d", "--data"},
            paramLabel = "FILE",
            description =
                    "Examples: loss and perplexity over the tokens that would be trained on, each weighted alike.")
    private Path data;

    @Option(
            names = "--answers",
            paramLabel = "N",
            arity = "0..1",
            fallbackValue = "2147483647",
            description =
                    "Also answer the first N questions of --data (all, without a number), and compare with the answers"
                            + " there: exact match and F1 over words.")
    private int answers;

    @Option(
            names = {"-n", "--max-tokens"},
            paramLabel = "N",
            description = "Most tokens of an answer. Default: ${DEFAULT-VALUE}")
    private int maxTokens = 64;

    @Option(
            names = "--text",
            paramLabel = "FILE",
            description = "A text: perplexity in windows, as llama.cpp's perplexity tool computes it.")
    private Path text;

    @Option(
            names = {"--ctx-size"},
            paramLabel = "N",
            description = "Tokens of a window of --text. Default: ${DEFAULT-VALUE}")
    private int window = 512;

    @Option(
            names = "--batch-size",
            paramLabel = "N",
            description = "Examples processed at once; does not change the result. Default: ${DEFAULT-VALUE}")
    private int batchSize = 4;

    @Option(
            names = "--report",
            paramLabel = "FILE",
            description = "Also write the result as a page: one HTML file that loads nothing.")
    private Path report;

    @Option(names = "--overwrite", description = "Replace a file of the name of --report that is no report.")
    private boolean overwrite;

    @Mixin
    private DataOptions dataOptions = new DataOptions();

    @Mixin
    private DeviceOptions device = new DeviceOptions();

    @Mixin
    private CommonOptions common = new CommonOptions();

    private List<Map<String, Object>> answersShown = List.of();
    /** What the page shows beside the results. */
    private final Map<String, Object> facts = new LinkedHashMap<>();

    private final List<String[]> rows = new ArrayList<>();
    private final Map<String, Map<String, Object>> json = new LinkedHashMap<>();

    EvalCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        if (data == null && text == null) {
            throw new IllegalArgumentException("nothing to measure: give --data or --text");
        }
        if (answers < 0 || answers > 0 && data == null) {
            throw new IllegalArgumentException("--answers needs --data, and a number of questions");
        }
        boolean classifies = dataOptions.classifies();
        refuseWhatChangesNothing(classifies);
        if (report != null) {
            OutputFile.requirePlace(report);
            Inputs inputs = new Inputs().add(model).add(data).add(text);
            adapters.forEach(name -> inputs.add(AdapterName.of(name).path()));
            inputs.refuse("--report " + report, report);
            ReportPage.requireReplaceable(report, overwrite);
        }
        if (classifies) {
            return evaluateClassifier();
        }
        try (Model base = AdapterName.base(terminal, model, device.config(), adapters);
                Adapter tuned = AdapterName.load(terminal, base, adapters)) {
            List<Evaluator> evaluators = new ArrayList<>(List.of(new Evaluator(base, null)));
            json.put("base", new LinkedHashMap<>());
            if (tuned != null) {
                evaluators.add(new Evaluator(base, tuned));
                json.put("tuned", new LinkedHashMap<>());
            }
            describe(base);
            if (data != null) {
                measureData(base, tuned, evaluators);
            }
            if (text != null) {
                measureText(base, evaluators);
            }
        }
        print();
        return ExitCode.OK;
    }

    private void refuseWhatChangesNothing(boolean classifies) {
        if (classifies && (data == null || text != null || answers > 0)) {
            throw new IllegalArgumentException("a classifier is measured on --data with a --label-field");
        }
        if (data == null) {
            List<String> ofData = GivenOptions.names(spec, dataOptions, "--batch-size");
            GivenOptions.refuse(spec, ofData, "is for --data; windows of --text have --ctx-size");
        }
        if (text == null) {
            GivenOptions.refuse(spec, List.of("--ctx-size"), "is for --text; examples of --data have --max-length");
        }
        if (answers == 0) {
            GivenOptions.refuse(spec, List.of("--max-tokens"), "is for --answers");
        }
        if (classifies) {
            DataOptions.refuseForClassifiers(spec);
            GivenOptions.refuse(spec, List.of("--batch-size"), "is not for classifiers: as many texts as fit are read");
        }
        if (report == null) {
            GivenOptions.refuse(spec, List.of("--overwrite"), "is for --report");
        }
    }

    /** Loss, accuracy, F1, and what is taken for what. */
    private int evaluateClassifier() {
        HubFiles.fetchData(terminal, List.of(data));
        try (Model base = AdapterName.base(terminal, model, device.config(), adapters);
                Adapter tuned = AdapterName.load(terminal, base, adapters);
                TextClassifier classifier = new TextClassifier(base, tuned)) {
            ClassMetrics metrics = new ClassMetrics(classifier.labels());
            Dataset records = dataOptions.load(data);
            List<DataRecord> waiting = new ArrayList<>();
            for (DataRecord record : records) {
                waiting.add(record);
                if (waiting.size() == 256) {
                    measure(classifier, waiting, records.name(), metrics);
                }
            }
            measure(classifier, waiting, records.name(), metrics);
            describe(base);
            showClasses(classifier.labels(), metrics, records.size());
        }
        return ExitCode.OK;
    }

    private static void measure(
            TextClassifier classifier, List<DataRecord> waiting, String name, ClassMetrics metrics) {
        // A label that was never seen is found before anything is computed of it.
        List<Float> values = waiting.stream()
                .map(record -> classifier.labels().value(record, name))
                .toList();
        List<TextClassifier.Classification> said = classifier.classify(
                waiting.stream().map(DataRecord::prompt).toList(),
                waiting.stream().map(DataRecord::input).toList());
        for (int i = 0; i < said.size(); i++) {
            metrics.add(said.get(i).outputs(), values.get(i));
        }
        waiting.clear();
    }

    private void describe(Model base) {
        ModelInfo info = base.info();
        String name = info.name().isEmpty() ? info.architecture() : info.name();
        facts.put("base", name + " (" + info.fileType() + ")");
        facts.put("device", info.device());
    }

    private void showClasses(Labels labels, ClassMetrics metrics, long examples) {
        Map<String, Object> all = new LinkedHashMap<>();
        all.put("loss", metrics.loss());
        all.putAll(metrics.values());
        all.put("examples", examples);
        all.put("labels", labels.names());
        if (metrics.confusion() != null) {
            all.put("confusion_matrix", metrics.confusion());
        }
        if (report != null) {
            facts.put("results", Map.of("classifier", all));
            writeReport();
            all.put("report", report.toString());
        }
        if (terminal.json()) {
            terminal.printJson(all);
            return;
        }
        terminal.out().println(String.format("%-24s%12s", "examples", Format.count(examples)));
        terminal.out().println(String.format("%-24s%12s", "loss", Format.fixed(metrics.loss(), 4)));
        metrics.values().forEach((name, value) -> terminal.out()
                .println(String.format("%-24s%12s", name, Format.fixed(value, 4))));
        if (metrics.confusion() != null) {
            showConfusion(labels, metrics.confusion());
        }
        sayWhereTheReportIs();
    }

    private void showConfusion(Labels labels, List<List<Long>> confusion) {
        terminal.out().println();
        StringBuilder head = new StringBuilder(String.format("%-24s", "is \\ said"));
        labels.names().forEach(name -> head.append(String.format("%12.11s", name)));
        terminal.out().println(head);
        for (int i = 0; i < confusion.size(); i++) {
            StringBuilder line =
                    new StringBuilder(String.format("%-24.23s", labels.names().get(i)));
            confusion.get(i).forEach(count -> line.append(String.format("%12d", count)));
            terminal.out().println(line);
        }
    }

    private void measureData(Model base, Adapter tuned, List<Evaluator> evaluators) {
        HubFiles.fetchData(terminal, List.of(data));
        Dataset records = dataOptions.load(data);
        DataConfig given = dataOptions.config(base);
        PromptTemplate template = given.template() != null
                ? given.template()
                : tuned != null && tuned.template() != null
                        ? tuned.template()
                        : PromptTemplate.forDataset(records, base.tokenizer().info());
        DataConfig config = given.withTemplate(template);
        TokenizedDataset examples = TokenizedDataset.of(records, base.tokenizer(), config);
        new TrainingReport(terminal).data("data", examples.report());
        facts.put("data", TrainingReport.json(examples.report()));
        facts.put("example", examples.report().sample());

        List<Evaluation> results = each(evaluators, evaluator -> evaluator.evaluate(examples, batchSize));
        row("loss", results, result -> Format.fixed(result.loss(), 4));
        row("perplexity", results, result -> Format.fixed(result.perplexity(), 3));
        record(results, (values, result) -> {
            values.put("loss", result.loss());
            values.put("perplexity", result.perplexity());
            values.put("trained_tokens", result.trainedTokens());
            values.put("examples", result.examples());
        });
        if (answers > 0) {
            List<DataRecord> questions = records.head(answers);
            GenerationConfig greedy = GenerationConfig.builder()
                    .temperature(0)
                    .maxNewTokens(maxTokens)
                    .build();
            List<List<String>> texts = new ArrayList<>();
            List<AnswerEvaluation> answered = each(evaluators, evaluator -> {
                List<String> came = new ArrayList<>();
                texts.add(came);
                CountLine count = new CountLine(terminal, "answers");
                AnswerEvaluation result = evaluator.evaluateAnswers(questions, template, greedy, (question, answer) -> {
                    came.add(answer);
                    count.show(came.size(), questions.size());
                });
                count.end();
                return result;
            });
            show(questions, texts);
            row("exact match", answered, result -> Format.percent(result.exactMatch(), 1));
            row("F1", answered, result -> Format.percent(result.f1(), 1));
            record(answered, (values, result) -> {
                values.put("exact_match", result.exactMatch());
                values.put("f1", result.f1());
                values.put("answers", result.examples());
            });
        }
    }

    /** Every question with what was expected and what came. */
    private void show(List<DataRecord> questions, List<List<String>> texts) {
        List<Map<String, Object>> shown = new ArrayList<>();
        List<String> names = new ArrayList<>(json.keySet());
        for (int i = 0; i < questions.size(); i++) {
            DataRecord question = questions.get(i);
            Map<String, Object> one = new LinkedHashMap<>();
            one.put("question", Questions.inWords(question));
            one.put("expected", question.answer());
            for (int e = 0; e < texts.size(); e++) {
                one.put(names.get(e), texts.get(e).get(i));
            }
            shown.add(one);
        }
        answersShown = shown;
        shown.forEach(one -> {
            terminal.out().println();
            one.forEach((name, text) -> answer(name, text.toString().strip()));
        });
    }

    private void answer(String name, String text) {
        String heading = terminal.bold(String.format("%-9s", name));
        for (String line : terminal.wrap(text.replaceAll("\\R", " "), 10)) {
            terminal.out().println(heading + " " + line);
            heading = " ".repeat(9);
        }
    }

    private void measureText(Model base, List<Evaluator> evaluators) {
        if (window > base.info().contextLength()) {
            terminal.err()
                    .println("warning: --ctx-size " + window + " is more than the "
                            + base.info().contextLength() + " positions that the model was trained with");
        }
        String content = read(text);
        List<TextEvaluation> results = each(evaluators, evaluator -> {
            CountLine count = new CountLine(terminal, "windows of the text");
            TextEvaluation result = evaluator.evaluateText(content, window, count::show);
            count.end();
            return result;
        });
        TextEvaluation any = results.get(0);
        new TrainingReport(terminal)
                .row(
                        "text",
                        text + ": " + Format.count(any.tokens(), "token") + ", " + Format.count(any.windows(), "window")
                                + " of " + window + "; scored: " + Format.count(any.scoredTokens(), "token"));
        row(
                "perplexity of the text",
                results,
                result -> Format.fixed(result.perplexity(), 4) + " ± " + Format.fixed(result.perplexityError(), 4));
        record(results, (values, result) -> {
            values.put("text_loss", result.loss());
            values.put("text_perplexity", result.perplexity());
            values.put("text_perplexity_error", result.perplexityError());
            values.put("text_windows", result.windows());
            values.put("text_scored_tokens", result.scoredTokens());
        });
    }

    private static String read(Path file) {
        try {
            return Files.readString(file);
        } catch (NoSuchFileException e) {
            throw new FileAccessException(file + " does not exist", e);
        } catch (CharacterCodingException e) {
            throw new FileAccessException(file + " is not UTF-8", e);
        } catch (IOException e) {
            throw new FileAccessException(file + " cannot be read: " + AtomicFile.reason(e), e);
        }
    }

    private static <R> List<R> each(List<Evaluator> evaluators, Function<Evaluator, R> measure) {
        return evaluators.stream().map(measure).toList();
    }

    private <R> void row(String title, List<R> results, Function<R, String> value) {
        List<String> row = new ArrayList<>(List.of(title));
        results.stream().map(value).forEach(row::add);
        rows.add(row.toArray(String[]::new));
    }

    private interface Recorder<R> {
        void put(Map<String, Object> values, R result);
    }

    private <R> void record(List<R> results, Recorder<R> recorder) {
        int i = 0;
        for (Map<String, Object> values : json.values()) {
            recorder.put(values, results.get(i++));
        }
    }

    private void print() {
        if (report != null) {
            facts.put("results", json);
            facts.put("answers", answersShown);
            writeReport();
        }
        if (terminal.json()) {
            Map<String, Object> all = new LinkedHashMap<>(json);
            if (!answersShown.isEmpty()) {
                all.put("answers", answersShown);
            }
            if (report != null) {
                all.put("report", report.toString());
            }
            terminal.printJson(all);
            return;
        }
        rows.add(0, adapters.isEmpty() ? new String[] {"", "base"} : new String[] {"", "base", "with adapter"});
        terminal.out().println();
        for (String[] row : rows) {
            StringBuilder line = new StringBuilder(String.format("%-24s", row[0]));
            for (int i = 1; i < row.length; i++) {
                line.append(String.format("%22s", row[i]));
            }
            terminal.out().println(line);
        }
        sayWhereTheReportIs();
    }

    private void writeReport() {
        facts.put("name", String.join(" + ", adapters.isEmpty() ? List.of(model.toString()) : adapters));
        facts.put("command", Shell.commandLine(spec));
        ReportPage.writeEvaluation(report, facts);
    }

    private void sayWhereTheReportIs() {
        if (report != null) {
            terminal.out().println();
            terminal.out().println("The result as a page: " + report);
        }
    }
}
