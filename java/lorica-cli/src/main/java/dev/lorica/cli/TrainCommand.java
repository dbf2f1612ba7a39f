package dev.lorica.cli;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.Method;
import dev.lorica.cli.report.ModelCard;
import dev.lorica.cli.report.ReportPage;
import dev.lorica.cli.report.RunFolder;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataReport;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluation;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.generate.Generation;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import dev.lorica.train.Checkpoint;
import dev.lorica.train.Resumption;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainerListener;
import dev.lorica.train.TrainingConfig;
import dev.lorica.train.TrainingPlan;
import dev.lorica.train.TrainingProgress;
import dev.lorica.train.TrainingResult;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code lorica train}: an adapter, trained on a data file. */
@Command(
        name = "train",
        header = "Train a LoRA adapter on a quantized model.",
        description = {
            "",
            "Names of Hugging Face's Trainer and PEFT work too, with - or _: --num_train_epochs, --lora_alpha."
        },
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica train --model FILE --data FILE[:WEIGHT]… --output DIR [OPTION]…",
        optionListHeading = "%nFiles:%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica train --model llama.gguf --data questions.json --output my-adapter",
            "  lorica train --model llama.gguf --data train.jsonl --output my-adapter \\",
            "      --lora-r 8 --target-modules q_proj,v_proj --epochs 1 --batch-size 2 --gradient-accumulation-steps 8"
        })
final class TrainCommand implements Callable<Integer> {
    private static final int ANSWER_TOKENS = 64;

    private final Terminal terminal;

    @Spec
    private CommandSpec spec;

    @Option(
            names = {"-c", "--config"},
            paramLabel = "FILE",
            description = "YAML file with any of these options; what is given here too is taken from here.")
    private Path config;

    @Option(
            names = {"-m", "--model"},
            required = true,
            paramLabel = "FILE",
            description = "The GGUF model" + HubFiles.OR_HUB + ". It is only read.")
    private Path model;

    @Option(
            names = {"-d", "--data"},
            required = true,
            paramLabel = "FILE[:WEIGHT]",
            converter = DataSource.Converter.class,
            description = "JSON, JSONL, CSV or Parquet with messages, instruction/response, question/answer,"
                    + " prompt/completion or text, or a text file; may be given several times. With :0.5 half of its"
                    + " examples are taken, with :2 each twice.")
    private List<DataSource> data = new ArrayList<>();

    @Option(
            names = {"-o", "--output"},
            required = true,
            paramLabel = "DIR",
            description = "Folder for the adapter.")
    private Path output;

    @Option(
            names = "--overwrite",
            description =
                    "Write into that folder even if it holds an adapter or other files; its checkpoints are deleted.")
    private boolean overwrite;

    @Option(
            names = {"-a", "--adapter"},
            paramLabel = "DIR|FILE",
            description = "Go on training this adapter instead of beginning a new one.")
    private Path start;

    @Option(
            names = "--eval-data",
            paramLabel = "FILE",
            description = "Examples to measure the loss on, before training, while it goes on and at its end.")
    private Path evalData;

    @Option(
            names = "--eval-split",
            paramLabel = "SHARE",
            description = "Put this share of the data aside for that, such as 0.1; which examples, --seed decides.")
    private Double evalSplit;

    @Option(
            names = "--max-eval-samples",
            paramLabel = "N",
            description = "Take the first N records of --eval-data only.")
    private Integer maxEvalSamples;

    @Option(
            names = "--adapter-format",
            paramLabel = "FORMAT",
            description =
                    "What to save: gguf (llama.cpp), peft (Hugging Face PEFT), or both. Default: ${DEFAULT-VALUE}")
    private String adapterFormat = "both";

    @Option(
            names = "--base-model-name",
            paramLabel = "NAME",
            description =
                    "What PEFT is to load as the base: a name on the hub or a path. Default: the name in the model's"
                            + " file")
    private String baseModelName;

    @Option(
            names = "--ask",
            paramLabel = "QUESTION",
            description = "Ask this before training and after it; may be given several times.")
    private List<String> questions = new ArrayList<>();

    @Mixin
    private ObjectiveOptions objective = new ObjectiveOptions();

    @Mixin
    private DataOptions dataOptions = new DataOptions();

    @Mixin
    private MethodOptions method = new MethodOptions();

    @Mixin
    private LoraOptions lora = new LoraOptions();

    @Mixin
    private TrainingOptions training = new TrainingOptions();

    @Mixin
    private CheckpointOptions checkpoints = new CheckpointOptions();

    @Mixin
    private HubOptions hub = new HubOptions();

    @Mixin
    private DeviceOptions device = new DeviceOptions();

    @Mixin
    private CommonOptions common = new CommonOptions();

    private AdapterFormat format;
    /** The model on this machine. */
    private Path modelFile;

    private final Map<String, Object> json = new LinkedHashMap<>();
    private final List<Map<String, Object>> log = new ArrayList<>();
    private int savedStep;

    TrainCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        check();
        try (OutputFolder folder = OutputFolder.prepare(output, overwrite, checkpoints.resumes())) {
            Checkpoint checkpoint = checkpoints.checkpoint(
                    output, overwrite, line -> terminal.err().println(line));
            if (checkpoint == null && folder.hasAdapter() && !overwrite) {
                throw new LoricaException(
                        "--output " + output + " holds a finished adapter, and no checkpoint to go on from; "
                                + "replace it with --overwrite, or choose another folder");
            }
            return train(folder, checkpoint);
        }
    }

    /** What needs no model, so that none is loaded, let alone downloaded, for settings that cannot be. */
    private void check() {
        format = Choices.of("--adapter-format", adapterFormat, AdapterFormat.class);
        if (evalSplit != null && evalData != null) {
            throw new IllegalArgumentException("--eval-data and --eval-split exclude each other");
        }
        dataOptions.records = objective.records();
        training.defaultLearningRate = objective.defaultLearningRate(training.defaultLearningRate);
        training.config(
                dataOptions.maxLength != null ? dataOptions.maxLength : DataOptions.DEFAULT_MAX_LENGTH, checkpoints);
        method.check(lora, training.seed());
        format = format.of(method.method());
        hub.check();
        List<Path> files = new ArrayList<>(data.stream().map(DataSource::path).toList());
        if (evalData != null) {
            files.add(evalData);
        }
        Inputs inputs = new Inputs().add(model).add(start);
        files.forEach(inputs::add);
        dataOptions.files().forEach(inputs::add);
        for (String name : OutputFolder.WRITTEN) {
            inputs.refuse("--output " + output, output.resolve(name));
        }
        Checkpoint.list(output).forEach(checkpoint -> inputs.refuseBelow("--output " + output, checkpoint));
        files.forEach(file -> Misnamed.check(file, Misnamed.What.DATA));
        HubFiles.fetchData(terminal, files);
        dataOptions.check(files);
    }

    private int train(OutputFolder folder, Checkpoint checkpoint) {
        modelFile = HubFiles.model(terminal, model);
        try (Model base = Model.load(modelFile, device.config());
                Adapter adapter = start == null
                        ? Adapter.create(
                                base,
                                method.config(
                                        lora, training.seed(), base.info().layers()))
                        : Adapter.load(base, HubFiles.adapter(terminal, start))) {
            if (start != null) {
                terminal.err()
                        .println("note: goes on with the adapter " + start
                                + "; what new ones are made with is not used");
                format = format.of(adapter.info().method());
            }
            folder.requireSpace(format.bytes(adapter.info().parameters()));
            return train(base, adapter, checkpoint);
        }
    }

    private int train(Model base, Adapter adapter, Checkpoint checkpoint) {
        TrainingReport report = new TrainingReport(terminal);
        report.model(base.info());

        DataConfig dataConfig = dataOptions.config(base);
        TokenizedDataset examples = dataOptions.examples(
                data, base.tokenizer(), dataConfig, training.seed(), part -> report.data("data", part));
        TokenizedDataset held = null;
        if (evalSplit != null) {
            TokenizedDataset.Split split = examples.split(evalSplit, training.seed());
            examples = split.train();
            held = split.eval();
            report.part("eval data", held.report());
            report.part("data left", examples.report());
        } else if (evalData != null) {
            DataConfig same =
                    DataOptions.withTemplate(dataConfig, examples.report().template());
            held = TokenizedDataset.of(
                    dataOptions.load(evalData, maxEvalSamples, "--max-eval-samples"), base.tokenizer(), same);
            report.data("eval data", held.report());
        }
        DataReport dataReport = examples.report();

        TrainingConfig asGiven = training.config(dataConfig.maxLength(), checkpoints);
        TrainingConfig trainingConfig = training.perEpoch(
                asGiven,
                new Trainer(base, adapter, asGiven, objective.objective())
                        .plan(examples, held)
                        .stepsPerEpoch(),
                checkpoints);
        Trainer trainer = new Trainer(base, adapter, trainingConfig, objective.objective())
                .precomputeReference(objective.precomputeReference)
                .checkpoints(output)
                .resume(checkpoint);
        TrainingPlan plan = trainer.plan(examples, held);
        report.memory(plan.memory());
        report.steps(plan);
        report.parameters(adapter.info().parameters(), base.info().parameters());
        if (!objective.isPlain()) {
            report.row("objective", objective.objective().inWords());
        }
        report.example(dataReport);
        warnAbout(base, dataConfig.maxLength());

        // What does not fit is refused by the trainer, at once and with the setting that would.
        boolean begins = plan.memory().fits() && checkpoint == null;
        List<String> before = begins ? answers("Before", base, adapter, dataReport.template()) : List.of();
        // An adapter that training goes on with is its own reference: there is nothing to be seen yet.
        boolean isReference = objective.objective().usesReference() && adapter.hasEffect();
        Evaluation untrained = held == null || !begins || isReference ? null : evaluate(trainer, held);

        TrainingResult result = run(trainer, examples, held);

        if (result.steps() == 0) {
            terminal.err().println("Stopped before the first step was done: nothing is saved.");
            if (terminal.json()) {
                terminal.printJson(Map.of("status", "interrupted", "steps", 0));
            }
            return ExitCode.INTERRUPTED;
        }
        if (!adapter.hasEffect()) {
            terminal.err()
                    .println("warning: the adapter changes nothing: "
                            + (adapter.info().method() == Method.LORA
                                    ? "every B is still zero, as it is"
                                    : "all is as it was")
                            + " before training. "
                            + "Was the learning rate 0 in all of the " + Format.count(result.steps(), "step") + "?");
        }
        format.write(adapter, output, baseModelName);
        report(result, adapter, base, plan, dataReport, untrained);
        List<String> after = result.stopped() ? List.of() : answers("After", base, adapter, dataReport.template());
        if (result.stopped()) {
            sayHowToGoOn(result);
        } else {
            sayHowToUse(examples, adapter);
        }
        json.put("answers", answersJson(before, after));
        showRun(dataReport);
        if (!result.stopped()) {
            hub.push(terminal, output);
        }
        if (terminal.json()) {
            json.put("log", log);
            terminal.printJson(json);
        }
        return result.stopped() ? ExitCode.INTERRUPTED : ExitCode.OK;
    }

    /** The page and the card beside the adapter. A result that is saved is not lost because these cannot be written. */
    private void showRun(DataReport data) {
        Map<String, Object> facts = new LinkedHashMap<>(json);
        facts.put("example", data.sample());
        facts.put(
                "command",
                Shell.program() + " train --config "
                        + Shell.quote(output.resolve(EffectiveConfig.FILE_NAME).toString()) + " --output "
                        + Shell.quote(output + "-again"));
        try {
            RunFolder.write(output, facts);
            ObjectNode run = RunFolder.read(output);
            ReportPage.write(output.resolve(ReportPage.FILE_NAME), List.of(run));
            ModelCard.write(output, run, baseModelName, format != AdapterFormat.PEFT, format != AdapterFormat.GGUF);
            json.put("report", output.resolve(ReportPage.FILE_NAME).toString());
            terminal.out().println("The run as a page: " + output.resolve(ReportPage.FILE_NAME));
        } catch (LoricaException e) {
            terminal.err().println("warning: the adapter is saved, its report is not: " + e.getMessage());
        }
    }

    private void warnAbout(Model base, int maxLength) {
        int context = base.info().contextLength();
        if (maxLength > context) {
            terminal.err()
                    .println("warning: --max-length " + maxLength + " is more than the " + context
                            + " positions that the model was trained with");
        }
    }

    @SuppressWarnings("try") // what is open is the handling of Ctrl-C, which nobody calls
    private TrainingResult run(Trainer trainer, TokenizedDataset examples, TokenizedDataset held) {
        ProgressLine progress = new ProgressLine(terminal);
        checkpoints
                .logs(output, problem -> progress.line("warning: " + problem))
                .forEach(trainer::addListener);
        trainer.addListener(new TrainerListener() {
            private boolean configIsWritten;

            @Override
            public void onResume(Resumption resumption) {
                progress.line("goes on from " + resumption.checkpoint() + ", step " + resumption.step() + " of "
                        + resumption.totalSteps());
                resumption.changes().forEach(change -> progress.line("note: " + change));
                json.put("resumed_from_step", resumption.step());
                savedStep = resumption.step();
            }

            @Override
            public void onStep(TrainingProgress now) {
                if (!configIsWritten) {
                    configIsWritten = true;
                    try {
                        EffectiveConfig.write(spec, output);
                    } catch (LoricaException e) {
                        progress.line("warning: " + e.getMessage());
                    }
                }
                progress.step(now);
            }

            @Override
            public void onSave(int step, Path checkpoint) {
                progress.line("saved " + checkpoint);
                savedStep = step;
            }

            @Override
            public void onSaveFailed(int step, LoricaException reason) {
                progress.line("warning: no checkpoint of step " + step + ": " + reason.getMessage()
                        + "; training goes on, checkpoints before it are in place");
            }

            @Override
            public void onLog(TrainingProgress now) {
                progress.log(now);
                Map<String, Object> entry = new LinkedHashMap<>();
                entry.put("step", now.step());
                entry.put("epoch", now.epoch());
                entry.put("loss", now.loss());
                entry.put("learning_rate", now.learningRate());
                entry.put("grad_norm", now.gradNorm());
                entry.put("tokens_per_second", now.tokensPerSecond());
                entry.put("utilization", now.utilization());
                entry.putAll(now.metrics());
                log.add(entry);
            }

            @Override
            public void onEvaluate(int step, Evaluation evaluation) {
                progress.line("eval after step " + step + ": " + inWords(evaluation));
                Map<String, Object> entry = new LinkedHashMap<>();
                entry.put("step", step);
                entry.put("eval_loss", evaluation.loss());
                if (evaluation.hasPerplexity()) {
                    entry.put("eval_perplexity", evaluation.perplexity());
                }
                evaluation.metrics().forEach((name, value) -> entry.put("eval_" + name, value));
                log.add(entry);
            }
        });
        Runnable orderlyEnd = () -> {
            progress.line(
                    "Stopping; what was trained so far will be saved. Ctrl-C again quits at once, without saving.");
            trainer.requestStop();
        };
        try (Interrupt interrupt = new Interrupt(orderlyEnd)) {
            return trainer.train(examples, held);
        } finally {
            progress.end();
        }
    }

    private Evaluation evaluate(Trainer trainer, TokenizedDataset held) {
        Evaluation untrained = trainer.evaluate(held);
        terminal.err().println("eval before training: " + inWords(untrained));
        return untrained;
    }

    private static String inWords(Evaluation evaluation) {
        return "loss " + Format.fixed(evaluation.loss(), 4)
                + (evaluation.hasPerplexity()
                        ? ", perplexity " + Format.fixed(evaluation.perplexity(), 2)
                        : ProgressLine.metrics(evaluation.metrics()).replace("  ", ", "));
    }

    private List<String> answers(String when, Model base, Adapter adapter, PromptTemplate template) {
        List<String> answers = new ArrayList<>();
        if (questions.isEmpty()) {
            return answers;
        }
        GenerationConfig config = GenerationConfig.builder()
                .temperature(0)
                .maxNewTokens(ANSWER_TOKENS)
                .build();
        ExampleEncoder encoder = new ExampleEncoder(base.tokenizer(), template, false);
        try (Generator generator = new Generator(base, adapter)) {
            for (String question : questions) {
                terminal.out().println(terminal.bold(when + ": " + question));
                Generation generation = generator.generate(encoder.prompt(question, ""), config);
                for (String piece : generation) {
                    terminal.out().print(piece);
                    terminal.out().flush();
                }
                terminal.out().println();
                terminal.out().println();
                answers.add(generation.result().text());
            }
        }
        return answers;
    }

    private List<Map<String, Object>> answersJson(List<String> before, List<String> after) {
        List<Map<String, Object>> pairs = new ArrayList<>();
        for (int i = 0; i < questions.size(); i++) {
            Map<String, Object> pair = new LinkedHashMap<>();
            pair.put("question", questions.get(i));
            pair.put("before", i < before.size() ? before.get(i) : null);
            pair.put("after", i < after.size() ? after.get(i) : null);
            pairs.add(pair);
        }
        return pairs;
    }

    private void report(
            TrainingResult result,
            Adapter adapter,
            Model base,
            TrainingPlan plan,
            DataReport data,
            Evaluation untrained) {
        OptionalLong peak = peakMemory();
        terminal.out()
                .println(howItEnded(result, plan)
                        + "Saved "
                        + terminal.bold(output.resolve(format.mainFile()).toString()));
        terminal.out()
                .println("  " + Format.count(result.steps(), "step") + " in " + Format.seconds(result.seconds()) + ", "
                        + Format.count(Math.round(result.tokensPerSecond())) + " tok/s, mean loss "
                        + Format.fixed(result.loss(), 4)
                        + (peak.isPresent() ? ", peak memory " + Format.bytes(peak.getAsLong()) : ""));
        if (untrained != null && result.evaluation() != null) {
            terminal.out()
                    .println("  eval loss " + Format.fixed(untrained.loss(), 4) + " → "
                            + Format.fixed(result.evaluation().loss(), 4)
                            + (result.evaluation().hasPerplexity()
                                    ? ", perplexity " + Format.fixed(untrained.perplexity(), 2) + " → "
                                            + Format.fixed(result.evaluation().perplexity(), 2)
                                    : ProgressLine.metrics(result.evaluation().metrics())
                                            .replace("  ", ", ")));
        }
        terminal.out().println();

        json.put("status", result.stopped() ? "interrupted" : "done");
        json.put("output", output.toString());
        json.put("adapter", output.resolve(format.mainFile()).toString());
        json.put("model", model.toString());
        json.put("device", base.info().device());
        json.put("device_detail", base.info().deviceDetail());
        json.put("device_reason", base.info().deviceReason());
        json.put("trainable_params", adapter.info().parameters());
        json.put("all_params", base.info().parameters() + adapter.info().parameters());
        json.put("steps", result.steps());
        json.put("total_steps", plan.totalSteps());
        json.put("epochs", result.epochs());
        json.put("loss", result.loss());
        json.put("eval_loss_before", untrained == null ? null : untrained.loss());
        json.put(
                "eval_loss",
                result.evaluation() == null ? null : result.evaluation().loss());
        json.put(
                "eval_perplexity",
                result.evaluation() == null || !result.evaluation().hasPerplexity()
                        ? null
                        : result.evaluation().perplexity());
        if (!objective.isPlain()) {
            json.put("objective", objective.objective().name());
            json.put("objective_settings", objective.objective().settings());
            json.put(
                    "eval_metrics",
                    result.evaluation() == null ? null : result.evaluation().metrics());
        }
        json.put("best_step", result.bestStep() == 0 ? null : result.bestStep());
        json.put("stopped_early", result.stoppedEarly());
        json.put("config", output.resolve(EffectiveConfig.FILE_NAME).toString());
        json.put("tokens", result.tokens());
        json.put("trained_tokens", result.trainedTokens());
        json.put("seconds", result.seconds());
        json.put("tokens_per_second", result.tokensPerSecond());
        json.put("peak_memory_bytes", peak.isPresent() ? peak.getAsLong() : null);
        Map<String, Object> memory = new LinkedHashMap<>(TrainingReport.parts(plan.memory()));
        memory.put("total", plan.memory().total());
        memory.put("available", plan.memory().available());
        memory.put("recomputed_layers", plan.memory().recomputedLayers());
        json.put("planned_memory_bytes", memory);
        json.put("data", TrainingReport.json(data));
    }

    private static String howItEnded(TrainingResult result, TrainingPlan plan) {
        String best = plan.config().loadBestModelAtEnd() && !result.stopped()
                ? "The best adapter is that of step " + result.bestStep() + ". "
                : "";
        if (result.stopped() || result.stoppedEarly()) {
            return "Stopped after step " + result.steps() + " of " + plan.totalSteps()
                    + (result.stoppedEarly() ? ": the evaluation loss no longer falls. " : ". ") + best;
        }
        return best;
    }

    private void sayHowToUse(TokenizedDataset examples, Adapter adapter) {
        boolean plain = examples.report().template().equals(PromptTemplate.PLAIN);
        String question = !questions.isEmpty() ? questions.get(0) : plain ? "Your prompt" : "Your question";
        terminal.out().println("Use it:");
        terminal.out()
                .println("  " + Shell.program() + " generate --model " + Shell.quote(model.toString()) + " --adapter "
                        + Shell.quote(output.toString()) + (plain ? " --prompt " : " --instruction ")
                        + Shell.quote(question));
        Method trained = adapter.info().method();
        if (adapter.info().useDora() || trained != Method.LORA) {
            String what = trained == Method.IA3 ? "IA3" : trained == Method.BITFIT ? "BitFit" : "DoRA";
            terminal.out().println("llama.cpp has no " + what + "; a model with this one folded in runs there:");
            terminal.out()
                    .println("  " + Shell.program() + " merge --model " + Shell.quote(model.toString()) + " --adapter "
                            + Shell.quote(output.toString()) + " --output merged.gguf");
            return;
        }
        if (format == AdapterFormat.PEFT) {
            return;
        }
        terminal.out().println("or with llama.cpp:");
        terminal.out()
                .println("  llama-cli -m " + Shell.quote(modelFile.toString()) + " --lora "
                        + Shell.quote(output.resolve(Adapter.FILE_NAME).toString()));
    }

    private void sayHowToGoOn(TrainingResult result) {
        if (savedStep != result.steps()) {
            terminal.out().println("The adapter is saved, but there is no checkpoint from which to go on exactly.");
            return;
        }
        terminal.out().println("To go on from here as if it had not been stopped:");
        terminal.out()
                .println("  " + Shell.program() + " train --config "
                        + Shell.quote(output.resolve(EffectiveConfig.FILE_NAME).toString()) + " --resume");
    }

    /** The most memory that this process has had, where Linux tells. */
    private static OptionalLong peakMemory() {
        try {
            return Files.readAllLines(Path.of("/proc/self/status")).stream()
                    .filter(line -> line.startsWith("VmHWM:"))
                    .mapToLong(line -> 1024 * Long.parseLong(line.replaceAll("\\D", "")))
                    .findFirst();
        } catch (IOException e) {
            return OptionalLong.empty();
        }
    }
}
