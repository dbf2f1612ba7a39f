package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataReport;
import dev.lorica.data.Lengths;
import dev.lorica.data.Packer;
import dev.lorica.data.TokenizedDataset;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code lorica data}: what training would make of data files. */
@Command(
        name = "data",
        header = "Show what training would learn from data files.",
        description = {
            "",
            "Formats, lengths, what is cut, left out, doubled and learned, and examples as the model sees them. The"
                    + " options are those of train; nothing is trained."
        },
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica data --model FILE --data FILE[:WEIGHT]… [OPTION]…",
        optionListHeading = "%nOptions:%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica data --model llama.gguf --data chats.jsonl --max-length 2048",
            "  lorica data --model llama.gguf --data questions.csv --chat-template llama3"
        })
final class DataCommand implements Callable<Integer> {
    private static final int ROWS = 12;
    private static final int BAR = 40;

    private final Terminal terminal;

    @Option(
            names = {"-m", "--model"},
            required = true,
            paramLabel = "FILE",
            description = "The GGUF model, of which the vocabulary and the chat template are read.")
    private Path model;

    @Option(
            names = {"-d", "--data"},
            required = true,
            paramLabel = "FILE[:WEIGHT]",
            converter = DataSource.Converter.class,
            description = "The data, as for train; may be given several times.")
    private List<DataSource> data = new ArrayList<>();

    @Option(
            names = "--examples",
            paramLabel = "N",
            description = "So many examples are shown. Default: ${DEFAULT-VALUE}")
    private int examples = 2;

    @Option(
            names = "--batch-size",
            paramLabel = "N",
            description = "For the fill of batches. Default: ${DEFAULT-VALUE}")
    private int batchSize = 4;

    @Option(names = "--seed", paramLabel = "N", description = "For the order of examples. Default: ${DEFAULT-VALUE}")
    private long seed = 42;

    @Option(
            names = "--objective",
            paramLabel = "NAME",
            description =
                    "The objective that the data are for, as of train; of pairs both sides are shown. Default: sft")
    private String objective = "sft";

    @Mixin
    private DataOptions dataOptions = new DataOptions();

    @Mixin
    private CommonOptions common = new CommonOptions();

    DataCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        if (examples < 0) {
            throw new IllegalArgumentException("--examples is " + examples + "; it must be 0 or more");
        }
        ObjectiveOptions chosen = new ObjectiveOptions();
        chosen.name = objective;
        dataOptions.records = chosen.records();
        HubFiles.fetchData(terminal, data.stream().map(DataSource::path).toList());
        try (Model base = Model.load(HubFiles.model(terminal, model))) {
            TrainingReport report = new TrainingReport(terminal);
            DataConfig config = dataOptions.config(base);
            List<DataReport> files = new ArrayList<>();
            TokenizedDataset all = dataOptions.examples(data, base.tokenizer(), config, seed, file -> {
                files.add(file);
                report.data("data", file);
            });
            if (data.size() > 1) {
                report.part("together", all.report());
            }
            report.weights("weights", all);
            Fill fill = Fill.of(Packer.shuffled(all, batchSize, seed, 0), batchSize);
            report.row("batches", fill.inWords());
            for (DataReport file : files) {
                histogram(file, files.size() > 1);
            }
            for (int i = 0; i < Math.min(examples, all.size()) * all.sequencesPerExample(); i++) {
                report.example(TokenizedDataset.stretches(all.examples().get(i), base.tokenizer()));
            }
            if (terminal.json()) {
                terminal.printJson(json(files, all, fill));
            }
        }
        return ExitCode.OK;
    }

    /**
     * How well batches of one size are filled.
     *
     * @param mean   tokens of a batch on average
     * @param most   tokens of the largest, for which memory is planned
     * @param padded tokens of a batch on average, were examples padded to the longest beside them
     */
    private record Fill(int batchSize, int batches, double mean, long most, double padded) {
        static Fill of(Packer.Batches batches, int batchSize) {
            long tokens = 0;
            long padded = 0;
            long most = 0;
            for (int i = 0; i < batches.size(); i++) {
                tokens += batches.tokens(i);
                padded += (long) batches.longest(i) * batches.examples(i);
                most = Math.max(most, batches.tokens(i));
            }
            double n = batches.size();
            return new Fill(batchSize, batches.size(), tokens / n, most, padded / n);
        }

        String inWords() {
            return Format.count(batches) + " of " + Format.count(batchSize, "example") + ": "
                    + Format.count(Math.round(mean))
                    + " tokens on average, the largest " + Format.count(most) + ": " + Format.percent(mean, most)
                    + " filled; padding, which packing saves, would add " + Format.percent(padded - mean, mean);
        }

        Map<String, Object> json() {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("batch_size", batchSize);
            json.put("batches", batches);
            json.put("mean_tokens", mean);
            json.put("largest_tokens", most);
            json.put("fill", mean / most);
            json.put("padded_mean_tokens", padded);
            return json;
        }
    }

    private void histogram(DataReport file, boolean named) {
        Lengths lengths = file.lengths();
        terminal.out().println();
        terminal.out()
                .println(terminal.bold("lengths") + (named ? " of " + file.name() : "") + ": median "
                        + Format.count(lengths.quantile(0.5)) + ", 95 % up to " + Format.count(lengths.quantile(0.95))
                        + ", 99 % up to " + Format.count(lengths.quantile(0.99)) + ", longest "
                        + Format.count(lengths.longest())
                        + " tokens");
        int step = step(lengths);
        long most = 1;
        for (int from = 0; from <= lengths.longest(); from += step) {
            most = Math.max(most, lengths.between(from, from + step));
        }
        for (int from = 0; from <= lengths.longest(); from += step) {
            long count = lengths.between(from, from + step);
            String bar = "█".repeat((int) Math.ceil((double) BAR * count / most));
            boolean tooLong = from > file.maxLength();
            terminal.out()
                    .println(String.format("  %9s  ", Format.count(from))
                            + (tooLong ? terminal.faint(bar) : bar)
                            + (count == 0 ? "" : " " + Format.count(count))
                            + (tooLong && count > 0 ? " too long" : ""));
        }
    }

    /** Tokens of a row: 1, 2 or 5 times a power of ten, so that there are at most {@link #ROWS}. */
    private static int step(Lengths lengths) {
        for (long power = 1; ; power *= 10) {
            for (int factor : new int[] {1, 2, 5}) {
                if (power * factor * ROWS > lengths.longest()) {
                    return (int) (power * factor);
                }
            }
        }
    }

    private Map<String, Object> json(List<DataReport> files, TokenizedDataset all, Fill fill) {
        Map<String, Object> json = new LinkedHashMap<>();
        List<Map<String, Object>> parts = new ArrayList<>();
        for (DataReport file : files) {
            Map<String, Object> part = TrainingReport.json(file);
            Lengths lengths = file.lengths();
            int step = step(lengths);
            Map<String, Object> histogram = new LinkedHashMap<>();
            for (int from = 0; from <= lengths.longest(); from += step) {
                histogram.put(Integer.toString(from), lengths.between(from, from + step));
            }
            Map<String, Object> quantiles = new LinkedHashMap<>();
            quantiles.put("median", lengths.quantile(0.5));
            quantiles.put("95", lengths.quantile(0.95));
            quantiles.put("99", lengths.quantile(0.99));
            part.put("lengths", Map.of("quantiles", quantiles, "histogram", histogram));
            parts.add(part);
        }
        json.put("files", parts);
        json.put("examples", all.size());
        json.put("tokens", all.report().tokens());
        json.put("trained_tokens", all.report().trainedTokens());
        json.put("batches", fill.json());
        return json;
    }
}
