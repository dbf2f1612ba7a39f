package dev.lorica.train;

import dev.lorica.Model;
import dev.lorica.TokenizerInfo;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.AdapterMetadata;
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.data.DataConfig;
import dev.lorica.data.Dataset;
import dev.lorica.data.Example;
import dev.lorica.data.Packer;
import dev.lorica.data.RecordKind;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluation;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.MemoryException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.NonFiniteException;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.json.Json;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;

/**
 * Trains an adapter.
 *
 * <pre>{@code
 * Trainer trainer = new Trainer(model, adapter, TrainingConfig.builder().epochs(2).build());
 * trainer.addListener(new TrainerListener() {
 *     @Override public void onLog(TrainingProgress p) { System.out.println(p.step() + ": " + p.loss()); }
 * });
 * TrainingResult result = trainer.train(Dataset.load(Path.of("qa.json")));
 * }</pre>
 *
 * The loop is that of Hugging Face's Trainer. A micro-batch is {@code batchSize} examples, packed. The gradients of
 * {@code gradientAccumulationSteps} micro-batches are added up as sums and divided once by the tokens trained on in all of them,
 * so every token counts alike and accumulation changes nothing but memory. The last group of an epoch may be smaller and is
 * stepped like the others. Each {@code train} begins anew with the optimizer's state, and goes on with the adapter as it is.
 *
 * <p>What is made small is an {@link Objective}: plain fine-tuning, unless another is given.
 *
 * <p>A run that is to survive its process writes checkpoints, and goes on from one to the very bytes in which it would have
 * ended:
 *
 * <pre>{@code
 * trainer.checkpoints(folder);
 * Checkpoint.latest(folder, (path, reason) -> {}).ifPresent(trainer::resume);
 * trainer.train(data);
 * }</pre>
 */
public final class Trainer {
    private static final int MOST_PLANNED_TOKENS = 1 << 24;

    private final Model model;
    private final Adapter adapter;
    private final TrainingConfig config;
    private final Objective objective;
    private final List<TrainerListener> listeners = new CopyOnWriteArrayList<>();
    private final StopSignal stop = new StopSignal();
    private Path folder;
    private Checkpoint resumeFrom;
    private boolean precomputesReference;
    private GradientWorkers workers;

    /**
     * Plain fine-tuning.
     *
     * @param model   the base, which stays the caller's
     * @param adapter what is trained, which stays the caller's
     * @param config  the settings
     */
    public Trainer(Model model, Adapter adapter, TrainingConfig config) {
        this(model, adapter, config, Objective.sft());
    }

    /**
     * Training with an objective.
     *
     * @param model     the base, which stays the caller's
     * @param adapter   what is trained, which stays the caller's
     * @param config    the settings
     * @param objective what makes a loss of log-probabilities
     */
    public Trainer(Model model, Adapter adapter, TrainingConfig config, Objective objective) {
        Arguments.given(model, "model");
        Arguments.given(adapter, "adapter");
        adapter.requireModel(model);
        this.model = model;
        this.adapter = adapter;
        this.config = Arguments.given(config, "config");
        this.objective = Arguments.given(objective, "objective");
    }

    /**
     * Listeners hear of everything in the order in which they were added.
     *
     * @param listener the listener
     * @return this trainer
     */
    public Trainer addListener(TrainerListener listener) {
        listeners.add(Arguments.given(listener, "listener"));
        return this;
    }

    /**
     * Where to write checkpoints, as {@link TrainingConfig#saveStrategy} says and when the run is stopped; {@code null}, which is
     * where it begins: nowhere.
     *
     * @param folder where checkpoints are written
     * @return this trainer
     */
    public Trainer checkpoints(Path folder) {
        this.folder = folder;
        return this;
    }

    /**
     * Whether the log-probabilities of the reference are computed once, before training, and kept: 4 bytes for each token, and one
     * forward pass less in every pass over the data. Otherwise they are computed with each micro-batch. What the reference is does
     * not depend on it: the model without its adapter; or, where the adapter already has an effect when training begins, the model
     * with the adapter as it is then, which is always computed before.
     *
     * @param precompute true: once, before training
     * @return this trainer
     */
    public Trainer precomputeReference(boolean precompute) {
        this.precomputesReference = precompute;
        return this;
    }

    /**
     * Who computes the gradients; {@code null}, which is where it begins: this machine. Optimizer, evaluation and checkpoints stay
     * here. Each {@code train} opens and closes them.
     *
     * @param workers the workers
     * @return this trainer
     */
    public Trainer workers(GradientWorkers workers) {
        this.workers = workers;
        return this;
    }

    /**
     * The next {@code train} goes on from this checkpoint; {@code null}: it begins anew.
     *
     * @param checkpoint one of the same run
     * @return this trainer
     */
    public Trainer resume(Checkpoint checkpoint) {
        this.resumeFrom = checkpoint;
        return this;
    }

    /**
     * Trains on responses only, in the data set's own template; examples longer than {@code maxLength} are left out.
     *
     * @param data the records
     * @return what came out
     */
    public TrainingResult train(Dataset data) {
        Arguments.given(data, "data");
        if (objective.records() == RecordKind.PAIRS != data.fields().isPairs()) {
            throw wrongRecords(data.fields().isPairs() ? 2 : 1);
        }
        if (objective.records() == RecordKind.PROMPTS) {
            return train(TokenizedDataset.prompts(data, model.tokenizer(), DataConfig.ofMaxLength(config.maxLength())));
        }
        TokenizedDataset examples = null;
        try {
            examples = objective instanceof Classification classification
                    ? TokenizedDataset.classified(data, model.tokenizer(), classification.labels(), classifiedLength())
                    : TokenizedDataset.of(
                            data, model.tokenizer(), DataConfig.ofMaxLength(config.maxLength()), stop::raised);
        } catch (LoricaException e) {
            // An interrupt closes the file that is being read.
            if (!stop.raised()) {
                throw e;
            }
        }
        if (examples != null) {
            return train(examples);
        }
        resumeFrom = null;
        stop.reset();
        return new TrainingResult(0, 0, Double.NaN, 0, 0, 0, true, false, 0, null);
    }

    private int classifiedLength() {
        return Math.min(config.maxLength(), model.info().contextLength());
    }

    /**
     * Trains without an evaluation.
     *
     * @param data what is trained on
     * @return what came out
     */
    public TrainingResult train(TokenizedDataset data) {
        return train(data, null);
    }

    /**
     * Ends training after the micro-batch that is running; {@code train} then returns a result that says so. What was
     * accumulated for a step that is not complete is given up; where there is a folder for checkpoints, one is written.
     * Callable from any thread, also before {@code train}. An interrupt of the thread that trains is such a request too, and is
     * there again when {@code train} returns.
     */
    public void requestStop() {
        stop.request();
    }

    /**
     * {@return how good the model is at present, by what the objective makes small}
     *
     * @param data what is evaluated on
     */
    public Evaluation evaluate(TokenizedDataset data) {
        Arguments.given(data, "data");
        requireRecords(data);
        TokenizedDataset scored = objective.scoresPrompts() ? data.withScoredPrompts() : data;
        BatchShape shape = seen(BatchShape.of(Packer.inOrder(data, evalBatchSize(config))));
        try (LocalSession session = new LocalSession(
                        adapter,
                        config.toBuilder().recomputation(Recomputation.ON).build(),
                        objective,
                        shape);
                Rollouts rollouts = rollouts(session, shape, null)) {
            return rollouts != null
                    ? rollouts.evaluate(data, evalBatchSize(config), () -> false)
                    : TrainingLoop.evaluate(session, objective, scored, evalBatchSize(config), () -> false);
        }
    }

    /** {@code null}: the answers that are learned from are in the data. */
    private Rollouts rollouts(LocalSession session, BatchShape shape, WorkersSource elsewhere) {
        if (!(objective instanceof Grpo grpo)) {
            return null;
        }
        return elsewhere == null
                ? new Rollouts(adapter, grpo, config.seed(), session, shape)
                : new Rollouts(grpo, config.seed(), session, elsewhere);
    }

    /** Optimizer steps that are taken with the same examples one after another. */
    static int iterations(Objective objective) {
        return objective instanceof Grpo grpo ? grpo.config().numIterations() : 1;
    }

    private void requireRecords(TokenizedDataset data) {
        boolean pairs = objective.records() == RecordKind.PAIRS;
        if (objective.records() == RecordKind.CLASSES && !data.report().fields().isClasses()) {
            throw wrongRecords(data.sequencesPerExample());
        }
        if (objective instanceof OutputObjective judged) {
            int wanted = judged.labels().outputs();
            if (adapter.labels() == null || adapter.labels().outputs() != wanted) {
                throw new InvalidArgumentException("the adapter has "
                        + (adapter.labels() == null
                                ? "no classifier"
                                : "a classifier of " + adapter.labels().outputs() + " outputs, where " + wanted
                                        + " are meant")
                        + "; make it with Adapter.create and "
                        + (judged instanceof Reward ? "Labels.reward()" : "these labels"));
            }
        }
        if (objective.usesTeacher() && data.teacher() == null) {
            throw new InvalidArgumentException(noTeacher(objective));
        }
        if (data.weights() != null && !objective.usesWeights()) {
            throw new InvalidArgumentException("the data have weights of tokens, from " + data.weights()[0] + " to "
                    + data.weights()[1] + ", which the objective " + objective.name()
                    + " does not know; take sft or distill, or data without weights");
        }
        boolean labelled = objective.records() == RecordKind.LABELLED;
        boolean prompts = objective.records() == RecordKind.PROMPTS;
        if (pairs != (data.sequencesPerExample() == 2)
                || labelled && data.values() == null
                || prompts != data.isPrompts()) {
            throw wrongRecords(data.isPrompts() ? 0 : data.sequencesPerExample());
        }
    }

    static String noTeacher(Objective objective) {
        return "the objective " + objective.name()
                + " learns from what a teacher says of the data, which say nothing of"
                + " one; give them that with TokenizedDataset.withTeacher";
    }

    private InvalidArgumentException wrongRecords(int perExample) {
        String wanted =
                switch (objective.records()) {
                    case PAIRS -> "pairs of a chosen and a rejected answer";
                    case LABELLED -> "answers with a label, whether they are good ones";
                    case CLASSES -> "texts with labels";
                    case ANSWERS -> "single answers";
                    case PROMPTS -> "prompts alone";
                };
        String found = perExample == 0 ? "prompts alone" : perExample == 2 ? "pairs" : "single answers";
        return new InvalidArgumentException("the objective " + objective.name() + " learns from " + wanted
                + ", and the data hold "
                + (objective.records() == RecordKind.LABELLED && perExample == 1 ? "answers without one" : found));
    }

    /** What the session will see: with room for prompts that have other answers behind them, or answers drawn to them. */
    private BatchShape seen(BatchShape shape) {
        if (objective instanceof Grpo grpo) {
            return Rollouts.shape(grpo.config(), shape);
        }
        return objective.usesKl()
                ? new BatchShape(shape.tokens(), shape.sequences(), Math.min(config.maxLength(), shape.tokens()))
                : objective.usesTeacher()
                        ? shape
                        : new BatchShape(shape.tokens(), shape.sequences(), shape.sequenceLength());
    }

    /**
     * {@return how many examples have not the invocation of an activated LoRA, which is added to none of their tokens; 0 of all else}
     *
     * @param data what is trained on
     */
    public int withoutInvocation(TokenizedDataset data) {
        Arguments.given(data, "data");
        boolean activated = !adapter.info().invocationTokens().isEmpty();
        int without = 0;
        for (Example example : activated ? data.examples() : List.<Example>of()) {
            without += adapter.isInvokedBy(example.ids()) ? 0 : 1;
        }
        return without;
    }

    private void requireInvocation(TokenizedDataset data) {
        if (!data.examples().isEmpty()
                && withoutInvocation(data) == data.examples().size()) {
            throw new InvalidArgumentException("no training example has the invocation of the adapter, "
                    + adapter.invocation()
                    + ": it would be added to no token; in the middle of a text the tokenizer may"
                    + " make other tokens of it than alone");
        }
    }

    /**
     * {@return what {@link #train(TokenizedDataset, TokenizedDataset)} is going to do, and what memory that needs}
     *
     * @param data     what is trained on
     * @param evalData what is evaluated on; {@code null}: nothing
     */
    public TrainingPlan plan(TokenizedDataset data, TokenizedDataset evalData) {
        Arguments.given(data, "data");
        int microBatches = Packer.batchCount(data, config.batchSize());
        int stepsPerEpoch = Math.multiplyExact(stepsPerEpoch(config, microBatches), iterations(objective));
        int totalSteps = totalSteps(config, stepsPerEpoch);
        if (config.warmupSteps() > totalSteps) {
            throw new InvalidArgumentException(
                    "the warm-up takes " + config.warmupSteps() + " steps, the whole run only " + totalSteps
                            + ", so its learning rate would never be reached; shorten the one or lengthen the other");
        }
        requireRecords(data);
        requireInvocation(data);
        if (evalData != null) {
            requireRecords(evalData);
        }
        BatchShape shape = seen(shape(data, evalData, ceilDiv(totalSteps, stepsPerEpoch)));
        return new TrainingPlan(
                config,
                data.size(),
                microBatches,
                stepsPerEpoch,
                totalSteps,
                LearningRate.warmupSteps(config, totalSteps),
                shape.tokens(),
                shape.sequences(),
                shape.sequenceLength(),
                adapter.info().parameters(),
                LocalSession.plan(adapter, config, shape));
    }

    /**
     * {@return what training on micro-batches of {@code sequences} sequences of {@code sequenceLength} tokens each needs} Nothing is
     * allocated.
     *
     * @param sequences      sequences of a micro-batch
     * @param sequenceLength tokens of each
     */
    public MemoryPlan memoryPlan(int sequences, int sequenceLength) {
        requirePositive("sequences", sequences);
        requirePositive("sequenceLength", sequenceLength);
        if ((long) sequences * sequenceLength > Integer.MAX_VALUE) {
            throw new InvalidArgumentException(
                    sequences + " sequences of " + sequenceLength + " tokens are too many for one batch");
        }
        return LocalSession.plan(
                adapter, config, new BatchShape(sequences * sequenceLength, sequences, sequenceLength));
    }

    /**
     * {@return the most sequences of {@code sequenceLength} tokens that a micro-batch can have and fit in memory; 0: not even one}
     *
     * @param sequenceLength tokens of each sequence
     */
    public int largestBatchSize(int sequenceLength) {
        requirePositive("sequenceLength", sequenceLength);
        int fits = 0;
        int limit = MOST_PLANNED_TOKENS / sequenceLength;
        int tooLarge = limit + 1;
        for (int size = 1; fits + 1 < tooLarge; size = fits == 0 ? 1 : Math.min(2 * fits, (fits + tooLarge) / 2)) {
            if (memoryPlan(size, sequenceLength).fits()) {
                fits = size;
            } else {
                tooLarge = size;
            }
        }
        return fits;
    }

    /**
     * Trains, from the beginning or from the checkpoint of {@link #resume}.
     *
     * @param data     what is trained on
     * @param evalData what is evaluated on while training and at its end; {@code null}: nothing
     * @return what came out; of a run that was stopped, what there is
     * @throws MemoryException    before the first step, if the session does not fit in memory; the message says what would
     * @throws NonFiniteException if a loss or gradient is not finite; the message names the step, the examples, the layer or
     *                            tensor and the learning rate. The adapter then is as it was after the step before, and so are
     *                            all checkpoints.
     * @throws MismatchException  if the run cannot go on from the checkpoint: the data, the model or settings are others
     */
    public TrainingResult train(TokenizedDataset data, TokenizedDataset evalData) {
        Arguments.given(data, "data");
        if (config.loadBestModelAtEnd() && (evalData == null || folder == null)) {
            throw new InvalidArgumentException("to load the best model at the end, "
                    + (evalData == null ? "data to evaluate on" : "a folder for checkpoints") + " must be given");
        }
        if (config.earlyStoppingPatience() > 0 && evalData == null) {
            throw new InvalidArgumentException("to stop early, data to evaluate on must be given");
        }
        try {
            TrainingPlan plan = plan(data, evalData);
            BatchShape shape = new BatchShape(
                    plan.largestBatch(),
                    plan.mostSequences(),
                    plan.longestExample(),
                    objective.usesTeacher()
                            ? BatchShape.of(Packer.inOrder(data, 1)).candidates()
                            : 0);
            try (LocalSession session = new LocalSession(adapter, config, objective, shape)) {
                WorkersSource elsewhere = workers == null ? null : new WorkersSource(workers, adapter, session);
                try (Rollouts rollouts = rollouts(session, shape, elsewhere)) {
                    TokenizedDataset examples = scored(session, shape, data);
                    if (workers != null) {
                        workers.open(
                                adapter,
                                config,
                                objective instanceof Grpo grpo ? grpo.withoutRewards() : objective,
                                shape);
                    }
                    GradientSource source = elsewhere == null ? session : elsewhere;
                    return train(
                            plan,
                            session,
                            rollouts == null ? source : rollouts,
                            examples,
                            scored(session, shape, evalData));
                }
            }
        } finally {
            if (workers != null) {
                workers.close();
            }
            resumeFrom = null;
            stop.reset();
        }
    }

    /** With what the objective wants to know of it before training. */
    private TokenizedDataset scored(LocalSession session, BatchShape shape, TokenizedDataset data) {
        if (data == null) {
            return null;
        }
        TokenizedDataset scored = objective.scoresPrompts() ? data.withScoredPrompts() : data;
        boolean fromHere = adapter.hasEffect();
        if (objective instanceof Grpo) {
            if (objective.usesReference() && fromHere) {
                throw new InvalidArgumentException(
                        "grpo with a beta above 0 begins with a new adapter: what the reference says"
                                + " of answers that are not drawn yet cannot be kept");
            }
            return data;
        }
        if (!objective.usesReference() || !(fromHere || precomputesReference)) {
            return scored;
        }
        float[][] reference = new float[data.examples().size()][];
        int next = 0;
        for (Batch batch : Packer.inOrder(scored, fitting(scored, shape))) {
            float[] logProbs = session.logProbs(batch, fromHere);
            int at = 0;
            for (int length : batch.sequenceLengths()) {
                reference[next++] = Arrays.copyOfRange(logProbs, at, at + length);
                at += length;
            }
        }
        return scored.withReference(reference);
    }

    /** Examples that are scored at once: the session has room for the batches of training, which come in another order. */
    private int fitting(TokenizedDataset data, BatchShape shape) {
        int size = config.batchSize();
        while (size > 1 && !BatchShape.of(Packer.inOrder(data, size)).fits(shape)) {
            size = (size + 1) / 2;
        }
        return size;
    }

    private TrainingResult train(
            TrainingPlan plan,
            LocalSession session,
            GradientSource gradients,
            TokenizedDataset data,
            TokenizedDataset evalData) {
        TrainingLoop loop = new TrainingLoop(
                new TrainingLoop.Run(
                        model,
                        adapter,
                        plan,
                        data,
                        evalData,
                        folder,
                        listeners,
                        stop::raised,
                        result -> describe(data, result),
                        objective),
                session,
                gradients,
                folder != null || resumeFrom != null);
        // An interrupt that came before would break what listeners write.
        stop.raised();
        Resumption resumption = resumeFrom == null ? null : loop.restore(resumeFrom);
        listeners.forEach(listener -> listener.onStart(plan));
        if (resumption != null) {
            listeners.forEach(listener -> listener.onResume(resumption));
        }
        TrainingResult result = loop.run();
        describe(data, result);
        listeners.forEach(listener -> listener.onEnd(result));
        return result;
    }

    /** Tells the adapter how it came to be. */
    private void describe(TokenizedDataset data, TrainingResult result) {
        TokenizerInfo tokens = model.tokenizer().info();
        Map<String, Object> training = new LinkedHashMap<>(Json.toMap(config));
        if (objective != Objective.sft()) {
            Map<String, Object> settings = new LinkedHashMap<>();
            settings.put("name", objective.name());
            settings.putAll(objective.settings());
            if (objective.usesTeacher()) {
                settings.put("teacher", data.teacher().header().teacher());
            }
            training.put("objective", settings);
        }
        adapter.describe(adapter.metadata()
                .trained(
                        data.report().template(),
                        new AdapterMetadata.SpecialTokens(tokens.addBos() ? tokens.bos() : -1, tokens.eos()),
                        training,
                        Json.toMap(result)));
    }

    private static void requirePositive(String name, int value) {
        if (value < 1) {
            throw new InvalidArgumentException(name + " is " + value + "; it must be at least 1");
        }
    }

    static int stepsPerEpoch(TrainingConfig config, int microBatches) {
        return ceilDiv(microBatches, config.gradientAccumulationSteps());
    }

    static int totalSteps(TrainingConfig config, int stepsPerEpoch) {
        if (config.maxSteps() > 0) {
            return config.maxSteps();
        }
        double steps = Math.ceil(config.epochs() * stepsPerEpoch);
        if (steps > Integer.MAX_VALUE) {
            throw new InvalidArgumentException(config.epochs() + " epochs of " + stepsPerEpoch + " steps are too many");
        }
        return (int) steps;
    }

    /** The largest of all batches that the run will see, so that the session takes no more memory than it needs. */
    private BatchShape shape(TokenizedDataset data, TokenizedDataset evalData, int epochs) {
        BatchShape shape = new BatchShape(1, 1, 1);
        for (int epoch = 0; epoch < (config.shuffle() ? epochs : 1); epoch++) {
            shape = shape.max(BatchShape.of(batches(config, data, epoch)));
        }
        return evalData == null ? shape : shape.max(BatchShape.of(Packer.inOrder(evalData, evalBatchSize(config))));
    }

    static Packer.Batches batches(TrainingConfig config, TokenizedDataset data, int epoch) {
        if (config.groupByLength()) {
            return Packer.groupedByLength(data, config.batchSize(), config.seed(), epoch);
        }
        return config.shuffle()
                ? Packer.shuffled(data, config.batchSize(), config.seed(), epoch)
                : Packer.inOrder(data, config.batchSize());
    }

    static int evalBatchSize(TrainingConfig config) {
        return config.evalBatchSize() > 0 ? config.evalBatchSize() : config.batchSize();
    }

    private static int ceilDiv(int a, int b) {
        return (int) ((a + (long) b - 1) / b);
    }
}
