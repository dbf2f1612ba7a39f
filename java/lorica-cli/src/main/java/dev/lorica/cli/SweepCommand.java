package dev.lorica.cli;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.cli.report.ReportPage;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.files.AtomicFile;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.regex.Pattern;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Spec;
import picocli.CommandLine.Unmatched;

/** {@code lorica sweep}: a run of {@code train} for each combination of options, ranked. */
@Command(
        name = "sweep",
        header = "Train with many combinations of options, and rank what comes out.",
        description = {
            "",
            "Takes every option of 'lorica train', and those below. Model and data are loaded once. A sweep that was "
                    + "stopped or killed goes on when the same command is given again."
        },
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica sweep --grid NAME=VALUES… --output DIR [OPTION of train]…",
        optionListHeading = "%nOptions:%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica sweep --model llama.gguf --data train.json --eval-data eval.json \\",
            "      --grid lora-r=4,8,16 --grid learning-rate=1e-4,5e-4 --output ranks",
            "  lorica sweep --model llama.gguf --data train.json --eval-split 0.1 \\",
            "      --grid learning-rate=1e-5..1e-3 --grid lora-r=4,8,16 --random 12 --output rates",
            "  lorica sweep --model llama.gguf --data train.json --eval-data eval.json --ask \"Who is he?\" \\",
            "      --grid method=lora,ia3,full --grid lora-r=4,16 --output methods"
        })
final class SweepCommand implements Callable<Integer> {
    /** Of which more is better, with {@code eval_} before them or not. */
    private static final Pattern GREATER_IS_BETTER =
            Pattern.compile("(eval_)?(accuracy|f1|reward|rewards/(accuracies|margins))");

    private final Terminal terminal;
    private final SweepRun.Cluster cluster;

    @Spec
    private CommandSpec spec;

    @Option(
            names = {"-g", "--grid"},
            required = true,
            paramLabel = "NAME=VALUES",
            description = "An option of train and the values to try: lora-r=4,8,16. Where values have commas, | stands"
                    + " between them: target-modules=q_proj,v_proj|all-linear. With --random also a range:"
                    + " learning-rate=1e-5..1e-3. May be given several times. What belongs to --method lora alone is"
                    + " not varied for other methods.")
    private List<String> grid = new ArrayList<>();

    @Option(names = "--random", paramLabel = "N", description = "Draw N combinations at random instead of trying all.")
    private Integer random;

    @Option(names = "--random-seed", paramLabel = "N", description = "Of that draw. Default: ${DEFAULT-VALUE}")
    private long randomSeed = 42;

    @Option(
            names = "--metric",
            paramLabel = "NAME",
            description = "What runs are ranked by, the smallest first, of accuracy, f1 and rewards the largest:"
                    + " eval_loss, loss, seconds or another number of train_report.json, eval metrics of an objective"
                    + " among them. Default: eval_loss, or loss where nothing is evaluated.")
    private String metric;

    @Option(names = "--greater-is-better", description = "The largest of --metric first, whatever it is.")
    private boolean greaterIsBetter;

    @Option(
            names = {"-o", "--output"},
            required = true,
            paramLabel = "DIR",
            description = "Folder for the runs, a folder for each, and for the page that shows them.")
    private Path output;

    @Option(names = "--overwrite", description = "Replace a sweep of other options in that folder.")
    private boolean overwrite;

    @Mixin
    private CommonOptions common = new CommonOptions();

    @Unmatched
    private List<String> train = new ArrayList<>();

    SweepCommand(Terminal terminal) {
        this(terminal, null);
    }

    /** @param cluster does the runs; {@code null}: this machine, one after another */
    SweepCommand(Terminal terminal, SweepRun.Cluster cluster) {
        this.terminal = terminal;
        this.cluster = cluster;
    }

    @Override
    public Integer call() {
        OutputFolder.refuseFile(output);
        if (train.stream().anyMatch(arg -> arg.matches("--resume(=.*)?"))) {
            throw new IllegalArgumentException(
                    "--resume is not for a sweep, which goes on when the same command is given again");
        }
        Grid options = new Grid(grid);
        List<Map<String, String>> drawn = random == null ? options.all() : options.drawn(random, randomSeed);
        if (random != null && drawn.size() < random) {
            terminal.err()
                    .println("note: there are no more than " + Format.count(drawn.size(), "combination") + " to draw");
        }
        // What is wrong with any of them is said before the first begins.
        Set<Map<String, String>> combinations = new LinkedHashSet<>();
        try (Workplace nothing = new Workplace()) {
            for (Map<String, String> varied : drawn) {
                TrainCommand command = command(varied, output.resolve("run"), terminal, nothing);
                Set<String> others = varied.containsKey("--method") ? command.dropWhatIsOfOtherMethods() : Set.of();
                if (command.pushes()) {
                    throw new IllegalArgumentException("--push-to-hub is not for a sweep; upload the best of it: "
                            + Shell.program() + " export --push-to-hub");
                }
                if (command.isDryRun()) {
                    throw new IllegalArgumentException("--dry-run is not for a sweep; " + Shell.program()
                            + " train --dry-run says of one run what it would do");
                }
                command.check();
                Map<String, String> own = new LinkedHashMap<>(varied);
                own.keySet().removeAll(others);
                combinations.add(own);
            }
        }
        SweepFolder folder = SweepFolder.open(output, train, List.copyOf(combinations), overwrite);
        Map<SweepFolder.Run, String> failed = new LinkedHashMap<>();
        boolean stopped;
        if (cluster != null) {
            runOnCluster(folder, failed);
            stopped = false;
        } else {
            try (Workplace workplace = new Workplace()) {
                stopped = !runAll(folder, workplace, failed);
            }
        }
        report(folder, failed, stopped);
        return stopped ? ExitCode.INTERRUPTED : failed.isEmpty() ? ExitCode.OK : ExitCode.FAILED;
    }

    private void runOnCluster(SweepFolder folder, Map<SweepFolder.Run, String> failed) {
        Map<String, SweepFolder.Run> waiting = new LinkedHashMap<>();
        List<SweepRun> tasks = new ArrayList<>();
        for (SweepFolder.Run run : folder.runs()) {
            if (folder.result(run) != null) {
                terminal.err().println(run.inWords() + ": done before");
                continue;
            }
            waiting.put(run.name(), run);
            tasks.add(new SweepRun(run.name(), List.copyOf(train), new LinkedHashMap<>(run.varied())));
        }
        if (tasks.isEmpty()) {
            return;
        }
        cluster.run(tasks, (task, outcome) -> {
            SweepFolder.Run run = waiting.get(task.name());
            SweepRun.write(outcome, folder.of(run), folder.logOf(run));
            JsonNode result = outcome.error() == null ? folder.result(run) : null;
            if (result == null) {
                failed.put(run, outcome.error() == null ? "it ended with code " + outcome.code() : outcome.error());
                terminal.err().println(run.inWords() + ": failed: " + failed.get(run));
                return;
            }
            terminal.err().println(run.inWords() + ": loss " + number(result, "loss"));
        });
    }

    /** False when it was stopped. */
    private boolean runAll(SweepFolder folder, Workplace workplace, Map<SweepFolder.Run, String> failed) {
        for (SweepFolder.Run run : folder.runs()) {
            String title = "run " + (folder.runs().indexOf(run) + 1) + " of "
                    + folder.runs().size() + ": " + run.inWords();
            if (folder.result(run) != null) {
                terminal.err().println(title + ": done before");
                continue;
            }
            terminal.err().println(title);
            try (PrintStream log =
                    new PrintStream(Files.newOutputStream(folder.logOf(run)), true, StandardCharsets.UTF_8)) {
                Terminal quiet = new Terminal(InputStream.nullInputStream(), log, log);
                PeakMemory.reset();
                TrainCommand command = command(run.varied(), folder.of(run), quiet, workplace);
                if (run.varied().containsKey("--method")) {
                    command.dropWhatIsOfOtherMethods();
                }
                if (command.call() == ExitCode.INTERRUPTED) {
                    return false;
                }
                JsonNode result = folder.result(run);
                terminal.err()
                        .println("  "
                                + (result.hasNonNull("eval_loss")
                                        ? "eval loss " + number(result, "eval_loss") + ", "
                                        : "")
                                + "loss " + number(result, "loss") + ", "
                                + Format.seconds(result.path("seconds").asDouble()));
            } catch (LoricaException | IllegalArgumentException e) {
                failed.put(run, LoricaCli.oneLine(e.getMessage()));
                terminal.err().println("  failed: " + failed.get(run));
            } catch (IOException e) {
                throw new LoricaException(folder.logOf(run) + " cannot be written: " + AtomicFile.reason(e), e);
            }
        }
        return true;
    }

    /** The command {@code train} of a run, with its options. */
    private TrainCommand command(Map<String, String> varied, Path folder, Terminal where, Workplace workplace) {
        return command(train, varied, folder, where, workplace);
    }

    static TrainCommand command(
            List<String> train, Map<String, String> varied, Path folder, Terminal where, Workplace workplace) {
        TrainCommand command = new TrainCommand(where, workplace);
        CommandLine program = LoricaCli.program(where, List.of(command));
        List<String> args = new ArrayList<>(List.of("train"));
        args.addAll(train);
        varied.forEach((option, value) -> args.addAll(List.of(option, value)));
        args.addAll(List.of("--output", folder.toString(), "--resume", "auto", "--overwrite"));
        try {
            program.parseArgs(LoricaCli.arguments(program, args.toArray(String[]::new), line -> {}));
        } catch (ParameterException e) {
            throw new IllegalArgumentException(WrongUsage.inWords(WrongUsage.cause(e)), e);
        }
        return command;
    }

    private void report(SweepFolder folder, Map<SweepFolder.Run, String> failed, boolean stopped) {
        Map<SweepFolder.Run, ObjectNode> results = new LinkedHashMap<>();
        for (SweepFolder.Run run : folder.runs()) {
            ObjectNode result = folder.result(run);
            if (result != null) {
                results.put(run, result);
            }
        }
        String by = metric != null
                ? metric
                : !results.isEmpty() && results.values().stream().allMatch(result -> result.hasNonNull("eval_loss"))
                        ? "eval_loss"
                        : "loss";
        if (!results.isEmpty()
                && results.values().stream()
                        .noneMatch(result -> value(result, by).isNumber())) {
            throw new IllegalArgumentException("--metric " + by + " is known of no run; there are "
                    + String.join(", ", metrics(results.values().iterator().next())));
        }
        boolean greater = greaterIsBetter || GREATER_IS_BETTER.matcher(by).matches();
        List<SweepFolder.Run> ranked = new ArrayList<>(results.keySet());
        ranked.sort(Comparator.comparingDouble(run -> {
            JsonNode value = value(results.get(run), by);
            return !value.isNumber() ? Double.POSITIVE_INFINITY : greater ? -value.asDouble() : value.asDouble();
        }));
        Path page = output.resolve(ReportPage.FILE_NAME);
        if (!results.isEmpty()) {
            results.forEach((run, result) -> result.put("page", run.name() + "/" + ReportPage.FILE_NAME));
            ReportPage.writeSweep(page, ranked.stream().map(results::get).toList(), by, Shell.commandLine(spec));
        }
        if (terminal.json()) {
            terminal.printJson(json(folder, ranked, results, failed, by, stopped, page));
            return;
        }
        table(ranked, results, by);
        failed.forEach((run, reason) -> terminal.out().println("failed: " + run.inWords() + ": " + reason));
        if (stopped) {
            terminal.out().println("Stopped. The same command goes on from here.");
        } else if (!ranked.isEmpty()) {
            terminal.out()
                    .println("The best is "
                            + terminal.bold(folder.of(ranked.get(0)).toString()));
            terminal.out().println("All runs as a page: " + page);
        }
    }

    private Map<String, Object> json(
            SweepFolder folder,
            List<SweepFolder.Run> ranked,
            Map<SweepFolder.Run, ObjectNode> results,
            Map<SweepFolder.Run, String> failed,
            String by,
            boolean stopped,
            Path page) {
        List<Map<String, Object>> runs = new ArrayList<>();
        for (SweepFolder.Run run : ranked) {
            Map<String, Object> one = new LinkedHashMap<>();
            one.put("output", folder.of(run).toString());
            one.put("varied", results.get(run).get("varied"));
            one.put("status", "done");
            for (String fact : List.of(
                    "eval_loss",
                    "eval_perplexity",
                    "loss",
                    "steps",
                    "trainable_params",
                    "planned_memory_bytes",
                    "peak_memory_bytes",
                    "seconds",
                    "answers")) {
                one.put(fact, results.get(run).path(fact));
            }
            one.put(by, value(results.get(run), by));
            runs.add(one);
        }
        failed.forEach((run, reason) -> {
            Map<String, Object> one = new LinkedHashMap<>();
            one.put("output", folder.of(run).toString());
            one.put("varied", run.varied());
            one.put("status", "failed");
            one.put("error", reason);
            runs.add(one);
        });
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("status", stopped ? "interrupted" : "done");
        json.put("output", output.toString());
        json.put("metric", by);
        json.put("best", ranked.isEmpty() ? null : folder.of(ranked.get(0)).toString());
        json.put("runs", runs);
        json.put("report", ranked.isEmpty() ? null : page.toString());
        return json;
    }

    private void table(List<SweepFolder.Run> ranked, Map<SweepFolder.Run, ObjectNode> results, String by) {
        if (ranked.isEmpty()) {
            return;
        }
        List<List<String>> rows = new ArrayList<>();
        List<String> head = new ArrayList<>(List.of("rank"));
        Set<String> options = new LinkedHashSet<>();
        ranked.forEach(run -> options.addAll(run.varied().keySet()));
        options.forEach(option -> head.add(option.substring(2)));
        boolean known = List.of("eval_loss", "loss", "seconds").contains(by);
        if (!known) {
            head.add(by);
        }
        head.addAll(List.of("eval loss", "loss", "trained", "planned", "used", "time"));
        rows.add(head);
        for (SweepFolder.Run run : ranked) {
            JsonNode result = results.get(run);
            List<String> row = new ArrayList<>(List.of(Integer.toString(rows.size())));
            options.forEach(option -> row.add(run.varied().getOrDefault(option, "-")));
            if (!known) {
                row.add(
                        value(result, by).isNumber()
                                ? Format.fixed(value(result, by).asDouble(), 4)
                                : "-");
            }
            row.add(number(result, "eval_loss"));
            row.add(number(result, "loss"));
            row.add(Format.shortCount(result.path("trainable_params").asLong()));
            row.add(Format.bytes(
                    result.path("planned_memory_bytes").path("total").asLong()));
            row.add(
                    result.path("peak_memory_bytes").isNumber()
                            ? Format.bytes(result.path("peak_memory_bytes").asLong())
                            : "-");
            row.add(Format.seconds(result.path("seconds").asDouble()));
            rows.add(row);
        }
        int[] widths = new int[head.size()];
        rows.forEach(row -> {
            for (int i = 0; i < widths.length; i++) {
                widths[i] = Math.max(widths[i], row.get(i).length());
            }
        });
        for (List<String> row : rows) {
            StringBuilder line = new StringBuilder();
            for (int i = 0; i < widths.length; i++) {
                line.append(i == 0 ? "" : "  ")
                        .append(" ".repeat(widths[i] - row.get(i).length()))
                        .append(row.get(i));
            }
            terminal.out().println(row == head ? terminal.bold(line.toString()) : line);
        }
    }

    /** A fact of a run, or one of the metrics of its last evaluation. */
    private static JsonNode value(JsonNode result, String name) {
        return result.path(name).isNumber()
                ? result.path(name)
                : result.path("eval_metrics").path(name.replaceFirst("^eval_", ""));
    }

    /** Names of the numbers that runs can be ranked by. */
    private static List<String> metrics(JsonNode result) {
        List<String> names = new ArrayList<>();
        for (JsonNode part : List.of(result.path("eval_metrics"), result)) {
            part.fields().forEachRemaining(field -> {
                if (field.getValue().isNumber()) {
                    names.add(field.getKey());
                }
            });
        }
        return names;
    }

    private static String number(JsonNode result, String fact) {
        return result.path(fact).isNumber() ? Format.fixed(result.path(fact).asDouble(), 4) : "-";
    }
}
