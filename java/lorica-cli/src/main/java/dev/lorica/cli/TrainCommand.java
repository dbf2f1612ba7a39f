package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.HuggingFaceModel;
import dev.lorica.adapter.Method;
import dev.lorica.convert.ModelFiles;
import dev.lorica.data.Labels;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.TeacherLogProbs;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluation;
import dev.lorica.eval.RewardModel;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.train.Checkpoint;
import dev.lorica.train.Objective;
import dev.lorica.train.Teacher;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainingConfig;
import dev.lorica.train.TrainingPlan;
import dev.lorica.train.TrainingResult;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.BooleanSupplier;
import java.util.stream.Stream;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Model.OptionSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code lorica train}: an adapter, trained on a data file. */
@Command(
        name = "train",
        header = "Train a LoRA adapter on a quantized model, or a model's own weights.",
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
    /** What full fine-tuning makes, beside the weights in f32 that it goes on with. */
    static final String MODEL_FILE = "model.gguf";
    /** Of a model for transformers. */
    static final String HUGGING_FACE_FOLDER = "huggingface";

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
            description = "Folder for the adapter, or the model (model.gguf) of full fine-tuning.")
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
                    "What to save: gguf (llama.cpp), peft (Hugging Face PEFT; of full a folder for transformers beside"
                            + " the model), or both. Default: ${DEFAULT-VALUE}")
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

    @Option(
            names = "--ask-at-evals",
            description = "Ask the questions at every evaluation too. All answers go to DIR/train_answers.jsonl.")
    private boolean askAtEvals;

    @Option(names = "--dry-run", description = "Say what the run would do, its data and its memory, and write nothing.")
    private boolean dryRun;

    @Option(
            names = "--show-examples",
            paramLabel = "N",
            description = "With --dry-run --json, so many examples token by token. Default: ${DEFAULT-VALUE}")
    private int shownExamples = 2;

    @Mixin
    private ObjectiveOptions objective = new ObjectiveOptions();

    @Mixin
    private DataOptions dataOptions = new DataOptions();

    @Mixin
    private ClassifierOptions classifier = new ClassifierOptions();

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

    private final Workplace workplace;
    private final TrainingCluster cluster;
    private AdapterFormat format;
    private boolean writesFolder;

    TrainCommand(Terminal terminal) {
        this(terminal, null, null);
    }

    /** @param workplace has what several runs share; {@code null}: this one is alone */
    TrainCommand(Terminal terminal, Workplace workplace) {
        this(terminal, workplace, null);
    }

    /** @param cluster computes the gradients; {@code null}: this machine */
    TrainCommand(Terminal terminal, TrainingCluster cluster) {
        this(terminal, null, cluster);
    }

    private TrainCommand(Terminal terminal, Workplace workplace, TrainingCluster cluster) {
        this.terminal = terminal;
        this.workplace = workplace;
        this.cluster = cluster;
    }

    boolean isDryRun() {
        return dryRun;
    }

    boolean pushes() {
        return hub.pushToHub != null;
    }

    /** Gives options that belong to other methods than this run's the values that they have unsaid. Returns their names. */
    Set<String> dropWhatIsOfOtherMethods() {
        Set<String> names = method.ofOthers();
        for (OptionSpec option : spec.options()) {
            if (names.contains(option.longestName())) {
                Object unsaid = option.initialValue();
                option.setValue(
                        unsaid instanceof Collection<?>
                                ? new ArrayList<>()
                                : unsaid instanceof Map<?, ?> ? new LinkedHashMap<>() : unsaid);
            }
        }
        return names;
    }

    @Override
    public Integer call() {
        check();
        if (dryRun) {
            return train(null, null);
        }
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
    void check() {
        format = Choices.of("--adapter-format", adapterFormat, AdapterFormat.class);
        if (askAtEvals && questions.isEmpty()) {
            throw new IllegalArgumentException("--ask-at-evals needs questions: --ask QUESTION");
        }
        if (shownExamples < 0) {
            throw new IllegalArgumentException("--show-examples is " + shownExamples + "; it must be 0 or more");
        }
        if (evalSplit != null && evalData != null) {
            throw new IllegalArgumentException("--eval-data and --eval-split exclude each other");
        }
        objective.check();
        dataOptions.records = objective.records();
        boolean classifies = dataOptions.classifies();
        classifier.check(classifies);
        if (classifies) {
            DataOptions.refuseForClassifiers(spec);
        }
        if (method.addTokens != null && start != null) {
            throw new IllegalArgumentException(
                    "--add-tokens and --adapter exclude each other: an adapter has the tokens"
                            + " that it was begun with");
        }
        if (method.addTokens != null && cluster != null) {
            throw new IllegalArgumentException(
                    "--add-tokens is not for a cluster, whose machines have the model's file alone; lorica add-tokens"
                            + " makes a model with them");
        }
        if (classifies && !objective.isPlain()) {
            throw new IllegalArgumentException("--objective and --label-field exclude each other");
        }
        if ((classifies || objective.isReward()) && !questions.isEmpty()) {
            throw new IllegalArgumentException("--ask is for models that answer; "
                    + (classifies ? "a classifier says labels" : "a reward model judges answers"));
        }
        training.defaultLearningRate = objective.defaultLearningRate(training.defaultLearningRate);
        training.config(
                dataOptions.maxLength() != null ? dataOptions.maxLength() : DataOptions.DEFAULT_MAX_LENGTH,
                checkpoints);
        method.check(lora, training.seed());
        format = format.of(method.method(), classifies || objective.isReward());
        hub.check();
        checkpoints.check();
        OutputFolder.refuseFile(output);
        List<Path> files = new ArrayList<>(data.stream().map(DataSource::path).toList());
        if (evalData != null) {
            files.add(evalData);
        }
        Inputs inputs = new Inputs()
                .add(model)
                .add(start)
                .add(objective.rewardAdapter)
                .add(objective.teacherModel)
                .add(objective.teacherAdapter);
        files.forEach(inputs::add);
        inputs.add(method.addTokens);
        dataOptions.files().forEach(inputs::add);
        for (String name : OutputFolder.WRITTEN) {
            inputs.refuse("--output " + output, output.resolve(name));
        }
        if (method.method() == Method.FULL) {
            inputs.refuse("--output " + output, output.resolve(MODEL_FILE));
            for (String name : List.of(HuggingFaceModel.CONFIG, HuggingFaceModel.WEIGHTS)) {
                inputs.refuse(
                        "--output " + output,
                        output.resolve(HUGGING_FACE_FOLDER).resolve(name));
            }
        }
        Checkpoint.list(output).forEach(checkpoint -> inputs.refuseBelow("--output " + output, checkpoint));
        files.forEach(file -> Misnamed.check(file, Misnamed.What.DATA));
        HubFiles.fetchData(terminal, files);
        dataOptions.check(files);
    }

    /** Other programs' files often have these without data to evaluate on, so it is no error. */
    private void noteEvaluationsWithoutData() {
        if (evalData != null || evalSplit != null) {
            return;
        }
        List<String> asked = Stream.of("--eval-steps", "--evals-per-epoch", "--ask-at-evals")
                .filter(spec.commandLine().getParseResult()::hasMatchedOption)
                .toList();
        if (!asked.isEmpty()) {
            terminal.err()
                    .println("note: asked for, and will not happen: evaluations (" + String.join(", ", asked)
                            + "), for which there are no data; name them with --eval-data or --eval-split");
        }
    }

    /**
     * Whether a dry run takes little time and memory where a model is loaded already: no weights are copied, which full fine-tuning
     * does, and adapters that are gone on with may do, and another model on a GPU.
     *
     * @param lent     the model that is there
     * @param config   with which it was loaded
     * @param maxBytes of all data files together
     */
    boolean isPlannedQuickly(Model lent, ModelConfig config, long maxBytes) {
        long bytes = 0;
        List<Path> files = new ArrayList<>(data.stream().map(DataSource::path).toList());
        if (evalData != null) {
            files.add(evalData);
        }
        for (Path file : files) {
            bytes += file.toFile().length();
        }
        boolean copiesNoModel = lent.info().device().equals("cpu")
                || model.toAbsolutePath()
                        .normalize()
                        .equals(lent.file().toAbsolutePath().normalize());
        return bytes <= maxBytes
                && copiesNoModel
                && device.config().equals(config)
                && start == null
                && objective.rewardAdapter == null
                && method.method() != Method.FULL;
    }

    private int train(OutputFolder folder, Checkpoint checkpoint) {
        if (workplace != null) {
            return train(folder, checkpoint, workplace);
        }
        try (Workplace own = new Workplace()) {
            return train(folder, checkpoint, own);
        }
    }

    private int train(OutputFolder folder, Checkpoint checkpoint, Workplace place) {
        Path modelFile = HubFiles.model(terminal, model);
        List<Path> bases = new ArrayList<>();
        if (start != null) {
            bases.add(HubFiles.adapter(terminal, start));
        }
        if (objective.rewardAdapter != null) {
            bases.add(HubFiles.adapter(terminal, objective.rewardAdapter));
        }
        ModelConfig modelConfig = method.addTokens != null
                ? method.withAddedTokens(terminal, device.config(), modelFile)
                : device.config().withAddedTokens(AdapterName.addedTokens(modelFile, bases));
        Model base = place.model(modelFile, modelConfig);
        Labels found = start != null
                ? null
                : dataOptions.classifies() ? dataOptions.labels(data) : objective.isReward() ? Labels.reward() : null;
        try (Adapter adapter = start == null
                ? Adapter.create(
                        base, method.config(lora, training.seed(), base.info().layers()), found)
                : Adapter.load(base, HubFiles.adapter(terminal, start))) {
            if (start != null) {
                terminal.err()
                        .println("note: goes on with the adapter " + start
                                + "; what new ones are made with is not used");
                format = format.of(adapter.info().method(), adapter.labels() != null);
            }
            Labels labels = dataOptions.classifies() ? adapter.labels() : null;
            if (dataOptions.classifies() && labels == null) {
                throw new LoricaException(
                        "the adapter " + start + " has no classifier; begin a new one without --adapter");
            }
            boolean full = adapter.info().method() == Method.FULL;
            writesFolder =
                    full && Choices.of("--adapter-format", adapterFormat, AdapterFormat.class) == AdapterFormat.PEFT;
            if (writesFolder) {
                HuggingFaceModel.check(base, adapter.labels());
            }
            if (folder != null) {
                folder.requireSpace((full ? 2 : 1) * format.bytes(adapter.info().parameters()));
            }
            noteEvaluationsWithoutData();
            TrainingReport report = new TrainingReport(terminal);
            report.model(base.info());
            TrainingData.Files files =
                    new TrainingData.Files(data, evalData, evalSplit, maxEvalSamples, training.seed());
            List<Object> all = List.of(
                    modelFile,
                    modelConfig.addedTokens(),
                    files,
                    dataOptions.records,
                    EffectiveConfig.valuesOf(spec, dataOptions));
            TrainingData loaded = place.data(all, () -> TrainingData.load(files, dataOptions, base, labels));
            loaded.describe(report);
            if (labels != null) {
                Objective wanted =
                        classifier.objective(labels, loaded.examples().classCounts(labels));
                return train(modelFile, base, adapter, loaded, checkpoint, report, wanted);
            }
            if (objective.isDistillation()) {
                return distill(folder, modelFile, base, adapter, loaded, checkpoint, report);
            }
            try (Adapter judging = objective.rewardAdapter == null
                            ? null
                            : Adapter.load(base, HubFiles.adapter(terminal, objective.rewardAdapter));
                    RewardModel judge = judging == null ? null : new RewardModel(base, judging)) {
                return train(modelFile, base, adapter, loaded, checkpoint, report, objective.objective(judge));
            }
        }
    }

    /** The teacher is asked first, and gone before there is training. */
    @SuppressWarnings("try") // what is open is the handling of Ctrl-C, which nobody calls
    private int distill(
            OutputFolder folder,
            Path modelFile,
            Model base,
            Adapter adapter,
            TrainingData loaded,
            Checkpoint checkpoint,
            TrainingReport report) {
        AtomicBoolean stopped = new AtomicBoolean();
        List<TeacherLogProbs> said = new ArrayList<>();
        try {
            try (Interrupt interrupt = new Interrupt(() -> stopped.set(true));
                    Model teaching = Model.load(HubFiles.model(terminal, objective.teacherModel), device.config());
                    Adapter tuned = objective.teacherAdapter == null
                            ? null
                            : Adapter.load(teaching, HubFiles.adapter(terminal, objective.teacherAdapter))) {
                Teacher teacher = objective.teacher(teaching, tuned);
                teacher.requireVocabularyOf(base);
                report.row("teacher", teacher.inWords());
                if (folder == null) {
                    // A dry run asks nobody: what would be learned and what that takes does not depend on it.
                    report.row("objective", objective.objective(null).inWords());
                    return train(modelFile, base, adapter, loaded, checkpoint, report, Objective.sft());
                }
                said.add(ask(teacher, loaded.examples(), stopped::get));
                said.add(loaded.held() == null ? null : ask(teacher, loaded.held(), stopped::get));
            }
            if (stopped.get()) {
                terminal.err().println("Stopped while the teacher was asked: nothing is saved.");
                if (terminal.json()) {
                    terminal.printJson(Map.of("status", "interrupted", "steps", 0));
                }
                return ExitCode.INTERRUPTED;
            }
            TrainingData taught = loaded.withTeacher(said.get(0), said.get(1));
            return train(modelFile, base, adapter, taught, checkpoint, report, objective.objective(null));
        } finally {
            said.stream().filter(Objects::nonNull).forEach(TeacherLogProbs::close);
        }
    }

    private TeacherLogProbs ask(Teacher teacher, TokenizedDataset data, BooleanSupplier stop) {
        Path cache = objective.teacherCache != null ? objective.teacherCache : output.resolve("teacher");
        CountLine line = new CountLine(terminal, "the teacher is asked about examples");
        try {
            return teacher.logProbs(
                    data, cache, share -> line.show((int) Math.ceil(share * data.size()), data.size()), stop);
        } finally {
            line.end();
        }
    }

    private int train(
            Path modelFile,
            Model base,
            Adapter adapter,
            TrainingData loaded,
            Checkpoint checkpoint,
            TrainingReport report,
            Objective wanted) {
        TrainingConfig asGiven = training.config(loaded.maxLength(), checkpoints);
        TrainingConfig trainingConfig = training.perEpoch(
                asGiven,
                new Trainer(base, adapter, asGiven, wanted)
                        .plan(loaded.examples(), loaded.held())
                        .stepsPerEpoch(),
                checkpoints);
        Trainer trainer = new Trainer(base, adapter, trainingConfig, wanted)
                .precomputeReference(objective.precomputesReference())
                .checkpoints(output)
                .workers(cluster == null ? null : cluster.workers(model, base, device.config()))
                .resume(checkpoint);
        TrainingPlan plan = trainer.plan(loaded.examples(), loaded.held());
        report.memory(plan.memory());
        report.steps(plan);
        report.parameters(adapter, base.info());
        if (adapter.info().method() == Method.FULL
                && !List.of("F32", "F16", "BF16").contains(base.info().fileType())) {
            terminal.err()
                    .println("note: the weights that are trained are expanded from "
                            + base.info().fileType()
                            + " to f32, "
                            + Format.bytes(Float.BYTES * adapter.info().parameters())
                            + ", and as much again for their gradients; the new model has them in F16");
        }
        if (wanted != Objective.sft()) {
            report.row("objective", wanted.inWords());
        }
        report.example(loaded.report());
        warnAbout(base, loaded.maxLength());
        int without = trainer.withoutInvocation(loaded.examples());
        if (without > 0) {
            terminal.err()
                    .println("warning: " + Format.count(without, "example") + " of "
                            + loaded.examples().examples().size() + " have not the invocation " + adapter.invocation()
                            + ": nothing is learned from them");
        }
        if (dryRun) {
            DryRun dry = new DryRun(base, adapter, loaded, plan);
            dry.words().forEach(terminal.out()::println);
            if (terminal.json()) {
                terminal.printJson(dry.json(shownExamples));
            }
            return ExitCode.OK;
        }

        // What does not fit is refused by the trainer, at once and with the setting that would.
        boolean begins = plan.memory().fits() && checkpoint == null;
        Questions asked = Questions.of(questions, loaded.samples());
        PromptTemplate template = loaded.report().template();
        List<String> before = begins ? asked.ask(terminal, "Before", base, adapter, template) : List.of();
        // An adapter that training goes on with is its own reference: there is nothing to be seen yet.
        boolean isReference = wanted.usesReference() && adapter.hasEffect();
        Evaluation untrained =
                loaded.held() == null || !begins || isReference ? null : evaluate(trainer, loaded.held());

        ProgressLine line = new ProgressLine(terminal);
        RunProgress progress = new RunProgress(line, () -> EffectiveConfig.write(spec, output));
        if (askAtEvals) {
            trainer.addListener(new AnswerLog(
                    output.resolve(AnswerLog.FILE_NAME),
                    asked,
                    before,
                    () -> asked.answers(base, adapter, template),
                    problem -> line.line("warning: " + problem)));
        }
        TrainingResult result = run(trainer, loaded, line, progress);

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
        if (adapter.info().method() == Method.FULL) {
            ModelFiles.merge(adapter, output.resolve(MODEL_FILE), null);
            if (writesFolder) {
                HuggingFaceModel.write(adapter, output.resolve(HUGGING_FACE_FOLDER));
            }
        }
        RunEnding ending = new RunEnding(terminal, model, modelFile, output, format, result, plan, loaded, wanted);
        ending.say(adapter, untrained);
        Map<String, Object> facts = ending.json(base, adapter, untrained);
        if (progress.resumedFrom() > 0) {
            facts.put("resumed_from_step", progress.resumedFrom());
        }
        List<String> after = result.stopped() ? List.of() : asked.ask(terminal, "After", base, adapter, template);
        if (result.stopped()) {
            ending.sayHowToGoOn(progress.savedStep());
        } else {
            ending.sayHowToUse(questions, adapter);
        }
        facts.put("answers", asked.json(before, after));
        ending.show(facts, baseModelName);
        if (!result.stopped()) {
            hub.push(terminal, output);
        }
        if (terminal.json()) {
            facts.put("log", progress.log());
            terminal.printJson(facts);
        }
        return result.stopped() ? ExitCode.INTERRUPTED : ExitCode.OK;
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
    private TrainingResult run(Trainer trainer, TrainingData loaded, ProgressLine line, RunProgress progress) {
        checkpoints.logs(output, problem -> line.line("warning: " + problem)).forEach(trainer::addListener);
        trainer.addListener(progress);
        Runnable orderlyEnd = () -> {
            line.line("Stopping; what was trained so far will be saved. Ctrl-C again quits at once, without saving.");
            trainer.requestStop();
        };
        try (Interrupt interrupt = new Interrupt(orderlyEnd)) {
            return trainer.train(loaded.examples(), loaded.held());
        } finally {
            line.end();
        }
    }

    private Evaluation evaluate(Trainer trainer, TokenizedDataset held) {
        Evaluation untrained = trainer.evaluate(held);
        terminal.err().println("eval before training: " + RunProgress.inWords(untrained));
        return untrained;
    }
}
