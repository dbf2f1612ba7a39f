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
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluation;
import dev.lorica.eval.Evaluator;
import dev.lorica.eval.Loss;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.MemoryException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.NonFiniteException;
import dev.lorica.internal.json.Json;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.Supplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

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

    private static final Logger LOG = LoggerFactory.getLogger(Trainer.class);
    /** Of those on which a number went wrong. */
    private static final int NAMED_EXAMPLES = 4;

    private static final int NAMED_TOKENS = 8;

    private final Model model;
    private final Adapter adapter;
    private final TrainingConfig config;
    private final List<TrainerListener> listeners = new CopyOnWriteArrayList<>();
    private volatile boolean stopRequested;
    private Path folder;
    private Checkpoint resumeFrom;

    public Trainer(Model model, Adapter adapter, TrainingConfig config) {
        adapter.requireModel(model);
        this.model = model;
        this.adapter = adapter;
        this.config = Objects.requireNonNull(config, "config");
    }

    /** Listeners hear of everything in the order in which they were added. */
    public Trainer addListener(TrainerListener listener) {
        listeners.add(Objects.requireNonNull(listener, "listener"));
        return this;
    }

    /**
     * Where to write checkpoints, as {@link TrainingConfig#saveStrategy} says and when the run is stopped; {@code null}, which is
     * where it begins: nowhere.
     */
    public Trainer checkpoints(Path folder) {
        this.folder = folder;
        return this;
    }

    /** The next {@code train} goes on from this checkpoint; {@code null}: it begins anew. */
    public Trainer resume(Checkpoint checkpoint) {
        this.resumeFrom = checkpoint;
        return this;
    }

    /** Trains on responses only, in the data set's own template; examples longer than {@code maxLength} are left out. */
    public TrainingResult train(Dataset data) {
        return train(TokenizedDataset.of(data, model.tokenizer(), DataConfig.ofMaxLength(config.maxLength())));
    }

    public TrainingResult train(TokenizedDataset data) {
        return train(data, null);
    }

    /**
     * Ends training after the micro-batch that is running; {@code train} then returns a result that says so. What was
     * accumulated for a step that is not complete is given up; where there is a folder for checkpoints, one is written.
     * Callable from any thread, also before {@code train}.
     */
    public void requestStop() {
        stopRequested = true;
    }

    /** What {@link #train(TokenizedDataset, TokenizedDataset)} is going to do, and what memory that needs. */
    public TrainingPlan plan(TokenizedDataset data, TokenizedDataset evalData) {
        int microBatches = Packer.batchCount(data, config.batchSize());
        int stepsPerEpoch = stepsPerEpoch(config, microBatches);
        int totalSteps = totalSteps(config, stepsPerEpoch);
        if (config.warmupSteps() > totalSteps) {
            throw new InvalidArgumentException(
                    "the warm-up takes " + config.warmupSteps() + " steps, the whole run only " + totalSteps
                            + ", so its learning rate would never be reached; shorten the one or lengthen the other");
        }
        BatchShape shape = shape(data, evalData, ceilDiv(totalSteps, stepsPerEpoch));
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
                TrainSession.plan(adapter, config, shape));
    }

    /**
     * What training on micro-batches of {@code sequences} sequences of {@code sequenceLength} tokens each needs. Nothing is
     * allocated.
     */
    public MemoryPlan memoryPlan(int sequences, int sequenceLength) {
        return TrainSession.plan(
                adapter,
                config,
                new BatchShape(Math.multiplyExact(sequences, sequenceLength), sequences, sequenceLength));
    }

    /** The most sequences of {@code sequenceLength} tokens that a micro-batch can have and fit in memory; 0: not even one. */
    public int largestBatchSize(int sequenceLength) {
        int fits = 0;
        int limit = Math.max(1, MOST_PLANNED_TOKENS / sequenceLength);
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
     * @param evalData what is evaluated on while training and at its end; {@code null}: nothing
     * @throws MemoryException    before the first step, if the session does not fit in memory; the message says what would
     * @throws NonFiniteException if a loss or gradient is not finite; the message names the step, the examples, the layer or
     *                            tensor and the learning rate. The adapter then is as it was after the step before, and so are
     *                            all checkpoints.
     * @throws MismatchException  if the run cannot go on from the checkpoint: the data, the model or settings are others
     */
    public TrainingResult train(TokenizedDataset data, TokenizedDataset evalData) {
        if (config.loadBestModelAtEnd() && (evalData == null || folder == null)) {
            throw new InvalidArgumentException("to load the best model at the end, "
                    + (evalData == null ? "data to evaluate on" : "a folder for checkpoints") + " must be given");
        }
        if (config.earlyStoppingPatience() > 0 && evalData == null) {
            throw new InvalidArgumentException("to stop early, data to evaluate on must be given");
        }
        TrainingPlan plan = plan(data, evalData);
        BatchShape shape = new BatchShape(plan.largestBatch(), plan.mostSequences(), plan.longestExample());
        try (TrainSession session = new TrainSession(adapter, config, shape)) {
            Run run = new Run(plan, session, data, evalData);
            Resumption resumption = resumeFrom == null ? null : run.restore(resumeFrom);
            listeners.forEach(listener -> listener.onStart(plan));
            if (resumption != null) {
                listeners.forEach(listener -> listener.onResume(resumption));
            }
            TrainingResult result = run.run();
            describe(data, result);
            listeners.forEach(listener -> listener.onEnd(result));
            return result;
        } finally {
            stopRequested = false;
            resumeFrom = null;
        }
    }

    /** Tells the adapter how it came to be. */
    private void describe(TokenizedDataset data, TrainingResult result) {
        TokenizerInfo tokens = model.tokenizer().info();
        adapter.describe(adapter.metadata()
                .trained(
                        data.report().template(),
                        new AdapterMetadata.SpecialTokens(tokens.addBos() ? tokens.bos() : -1, tokens.eos()),
                        Json.toMap(config),
                        Json.toMap(result)));
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
            shape = shape.max(BatchShape.of(batches(data, epoch)));
        }
        return evalData == null ? shape : shape.max(BatchShape.of(Packer.inOrder(evalData, evalBatchSize())));
    }

    private Packer.Batches batches(TokenizedDataset data, int epoch) {
        if (config.groupByLength()) {
            return Packer.groupedByLength(data, config.batchSize(), config.seed(), epoch);
        }
        return config.shuffle()
                ? Packer.shuffled(data, config.batchSize(), config.seed(), epoch)
                : Packer.inOrder(data, config.batchSize());
    }

    private int evalBatchSize() {
        return config.evalBatchSize() > 0 ? config.evalBatchSize() : config.batchSize();
    }

    private static int ceilDiv(int a, int b) {
        return (a + b - 1) / b;
    }

    /** One training run: the loop, and what it counts. */
    private final class Run {
        private final TrainingPlan plan;
        private final TrainSession session;
        private final TokenizedDataset data;
        private final TokenizedDataset evalData;
        private final LearningRate learningRate;
        private final TrainSession.Speed speed;

        private final String dataChecksum;
        private final String evalChecksum;

        private final long start = System.nanoTime();
        private double secondsBefore;
        private int step;
        private int pass;
        private int microBatch;
        private double epoch;
        private Tally total = new Tally();
        private Tally sinceLog = new Tally();
        private Evaluation evaluation;
        private boolean evaluationPending;
        private int bestStep;
        private double bestLoss = Double.POSITIVE_INFINITY;
        private int evaluationsWithoutGain;
        private boolean savePending;
        private int savedStep;
        private Path lastCheckpoint;

        Run(TrainingPlan plan, TrainSession session, TokenizedDataset data, TokenizedDataset evalData) {
            this.plan = plan;
            this.session = session;
            this.speed = session.measureSpeed();
            this.data = data;
            this.evalData = evalData;
            this.learningRate = new LearningRate(config, plan.totalSteps());
            boolean needed = folder != null || resumeFrom != null;
            this.dataChecksum = needed ? TrainerState.checksum(data) : null;
            this.evalChecksum = needed && evalData != null ? TrainerState.checksum(evalData) : null;
        }

        Resumption restore(Checkpoint checkpoint) {
            TrainerState state = checkpoint.state();
            AdapterMetadata.BaseModel base = AdapterMetadata.BaseModel.of(model);
            if (!state.baseModel().fingerprint().equals(base.fingerprint())) {
                throw new MismatchException(checkpoint.path() + " belongs to a run on "
                        + state.baseModel().inWords() + ", not on " + base.inWords());
            }
            List<String> obstacles = state.obstacles(config, adapter.info(), dataChecksum);
            if (!obstacles.isEmpty()) {
                throw new MismatchException("the run cannot go on from " + checkpoint.path() + ": "
                        + String.join("; ", obstacles) + ". Give it what it had, or begin anew in another folder");
            }
            session.loadState(checkpoint.trainingState());
            secondsBefore = state.seconds();
            step = state.step();
            pass = state.pass();
            microBatch = state.microBatch();
            epoch = state.epoch();
            total = new Tally(state.total());
            sinceLog = new Tally(state.sinceLog());
            evaluation = state.evaluation();
            evaluationPending = state.evaluationPending() && evalData != null;
            savePending = evaluationPending;
            bestStep = state.bestStep();
            bestLoss = bestStep == 0 ? Double.POSITIVE_INFINITY : state.bestLoss();
            evaluationsWithoutGain = state.evaluationsWithoutGain();
            savedStep = step;
            lastCheckpoint = checkpoint.path();
            List<String> changes = new ArrayList<>(state.changes(config, evalChecksum));
            if (config.loadBestModelAtEnd() && bestStep != 0 && !isWhole(Checkpoint.path(folder, bestStep))) {
                changes.add("the best checkpoint so far, of step " + bestStep + ", is not in " + folder
                        + ": the search for it begins anew");
                bestStep = 0;
                bestLoss = Double.POSITIVE_INFINITY;
            }
            return new Resumption(step, plan.totalSteps(), epoch, checkpoint.path(), evaluationPending, changes);
        }

        private static boolean isWhole(Path checkpoint) {
            try {
                Checkpoint.open(checkpoint);
                return true;
            } catch (LoricaException e) {
                return false;
            }
        }

        TrainingResult run() {
            if (folder != null) {
                Checkpoint.deleteUnfinished(folder);
            }
            boolean stopped = !settle();
            while (!stopped && step < plan.totalSteps() && !patienceIsOver()) {
                stopped = !trainPass();
            }
            model.requireUnchanged(); // what was trained on another file than it began with is no result
            boolean stoppedEarly = !stopped && step < plan.totalSteps();
            if (stopped && step > 0 && savedStep != step) {
                save();
            }
            if (!stopped && config.loadBestModelAtEnd() && bestStep != 0 && bestStep != step) {
                session.loadState(
                        Checkpoint.open(Checkpoint.path(folder, bestStep)).trainingState());
                Evaluation best = naming(
                        () -> Evaluator.evaluate(session::evaluate, evalData, evalBatchSize(), () -> false),
                        () -> "evaluation after step " + step + " of " + plan.totalSteps());
                return result(false, stoppedEarly, best);
            }
            return result(stopped, stoppedEarly, evaluation);
        }

        /** Goes on with the pass to its end; false when training is to stop before. */
        private boolean trainPass() {
            Packer.Batches batches = batches(data, pass);
            while (microBatch < batches.size()) {
                int end = Math.min(microBatch + config.gradientAccumulationSteps(), batches.size());
                Tally group = accumulate(batches, microBatch, end);
                if (group == null) {
                    return false;
                }
                int begin = microBatch;
                epoch = pass + (double) end / batches.size();
                microBatch = end;
                boolean endOfPass = end == batches.size();
                step(group, () -> inWords(batches, begin, end), endOfPass);
                if (endOfPass) {
                    pass++;
                    microBatch = 0;
                }
                if (!settle()) {
                    return false;
                }
                if (endOfPass || step == plan.totalSteps() || patienceIsOver()) {
                    return true;
                }
            }
            return true;
        }

        private boolean patienceIsOver() {
            return config.earlyStoppingPatience() > 0 && evaluationsWithoutGain >= config.earlyStoppingPatience();
        }

        /** Adds up the gradients of micro-batches; {@code null} when training is to stop before that is complete. */
        private Tally accumulate(Packer.Batches batches, int from, int end) {
            Tally tally = new Tally();
            for (int i = from; i < end; i++) {
                if (stopRequested) {
                    return null;
                }
                Batch batch = batches.get(i);
                int microBatch = i;
                tally.add(
                        batch,
                        naming(
                                () -> session.forwardBackward(batch),
                                () -> inWords(batches, microBatch, microBatch + 1)));
                listeners.forEach(TrainerListener::onMicroBatch);
            }
            return tally;
        }

        private void step(Tally group, Supplier<String> examples, boolean endOfEpoch) {
            double rate = learningRate.at(step);
            double norm = naming(
                    () -> session.optimizerStep(rate, config.weightDecay(), 1.0 / group.trained, config.maxGradNorm()),
                    examples);
            step++;
            group.stop();
            total.add(group);
            sinceLog.add(group);

            TrainingProgress progress = progress(group, rate, norm);
            listeners.forEach(listener -> listener.onStep(progress));
            boolean last = step == plan.totalSteps();
            if (step % config.loggingSteps() == 0 || last) {
                TrainingProgress log = progress(sinceLog, rate, norm);
                listeners.forEach(listener -> listener.onLog(log));
                sinceLog = new Tally();
            }
            boolean evaluates = evalData != null && config.evalStrategy() != IntervalStrategy.NO;
            evaluationPending = evaluates && (last || isDue(config.evalStrategy(), config.evalSteps(), endOfEpoch));
            savePending = folder != null && isDue(config.saveStrategy(), config.saveSteps(), endOfEpoch);
        }

        private boolean isDue(IntervalStrategy strategy, int steps, boolean endOfEpoch) {
            return switch (strategy) {
                case NO -> false;
                case STEPS -> step % steps == 0;
                case EPOCH -> endOfEpoch;
            };
        }

        /** Does what is due after a step; false when training is to stop before that is done. */
        private boolean settle() {
            if (evaluationPending) {
                Evaluation result = naming(
                        () -> Evaluator.evaluate(session::evaluate, evalData, evalBatchSize(), () -> stopRequested),
                        () -> "evaluation after step " + step + " of " + plan.totalSteps());
                if (result == null) {
                    return false;
                }
                evaluationPending = false;
                evaluation = result;
                listeners.forEach(listener -> listener.onEvaluate(step, result));
                boolean gain = result.loss() < bestLoss - config.earlyStoppingThreshold();
                evaluationsWithoutGain = gain ? 0 : evaluationsWithoutGain + 1;
                if (result.loss() < bestLoss) {
                    int bestBefore = bestStep;
                    double lossBefore = bestLoss;
                    bestStep = step;
                    bestLoss = result.loss();
                    if (config.loadBestModelAtEnd()) {
                        savePending = false;
                        if (!save()) {
                            // What is not kept cannot be loaded at the end.
                            bestStep = bestBefore;
                            bestLoss = lossBefore;
                        }
                    }
                }
            }
            if (savePending) {
                savePending = false;
                save();
            }
            return true;
        }

        /** Whether that succeeded. */
        private boolean save() {
            if (folder == null) {
                return false;
            }
            try {
                describe(data, result(true, false, evaluation));
                Path checkpoint = Checkpoint.write(folder, state(), adapter, session);
                savedStep = step;
                lastCheckpoint = checkpoint;
                listeners.forEach(listener -> listener.onSave(step, checkpoint));
                Checkpoint.rotate(folder, config.saveTotalLimit(), config.loadBestModelAtEnd() ? bestStep : 0);
            } catch (MismatchException e) {
                throw e; // the model's file is another one: going on is of no use
            } catch (LoricaException e) {
                LOG.warn("checkpoint of step {}: {}", step, e.getMessage());
                listeners.forEach(listener -> listener.onSaveFailed(step, e));
            }
            return savedStep == step;
        }

        private TrainerState state() {
            return new TrainerState(
                    TrainerState.VERSION,
                    step,
                    pass,
                    microBatch,
                    epoch,
                    total.sums(),
                    sinceLog.sums(),
                    seconds(),
                    evaluation,
                    evaluationPending,
                    bestStep,
                    bestStep == 0 ? 0 : bestLoss,
                    evaluationsWithoutGain,
                    config,
                    AdapterMetadata.BaseModel.of(model),
                    adapter.info(),
                    dataChecksum,
                    evalChecksum);
        }

        private TrainingResult result(boolean stopped, boolean stoppedEarly, Evaluation last) {
            return new TrainingResult(
                    step,
                    epoch,
                    total.meanLoss(),
                    total.tokens,
                    total.trained,
                    seconds(),
                    stopped,
                    stoppedEarly,
                    bestStep,
                    last);
        }

        private TrainingProgress progress(Tally over, double rate, double norm) {
            double seconds = seconds();
            return new TrainingProgress(
                    step,
                    plan.totalSteps(),
                    epoch,
                    over.meanLoss(),
                    rate,
                    norm,
                    total.tokens,
                    total.trained,
                    over.tokens / over.seconds,
                    speed.utilization(over.tokens / over.seconds),
                    seconds,
                    seconds / step * (plan.totalSteps() - step));
        }

        private double seconds() {
            return secondsBefore + (System.nanoTime() - start) / 1e9;
        }

        /** Says at which step and on which data a number went wrong, what usually helps, and what is left. */
        private <T> T naming(Supplier<T> call, Supplier<String> where) {
            try {
                return call.get();
            } catch (NonFiniteException e) {
                throw new NonFiniteException(
                        String.format(
                                Locale.ROOT,
                                "%s: %s; try a lower learning rate (it is %.3g) or a longer warm-up%s",
                                where.get(),
                                e.getMessage(),
                                learningRate.at(Math.min(step, plan.totalSteps() - 1)),
                                lastCheckpoint == null ? "" : "; " + lastCheckpoint + " is as it was"),
                        e);
            }
        }

        /**
         * {@code training step 3 of 9, examples 4 ("Mr. Collins is"), 11 ("At Longbourn")}: places in the data from 1, and how what
         * is trained on begins.
         */
        private String inWords(Packer.Batches batches, int from, int end) {
            List<String> examples = new ArrayList<>();
            int more = 0;
            for (int i = from; i < end; i++) {
                for (int index : batches.numbers(i)) {
                    if (examples.size() < NAMED_EXAMPLES) {
                        examples.add(
                                (index + 1) + " (\"" + beginning(data.examples().get(index)) + "\")");
                    } else {
                        more++;
                    }
                }
            }
            return "training step " + (step + 1) + " of " + plan.totalSteps() + ", "
                    + (examples.size() == 1 ? "example " : "examples ") + String.join(", ", examples)
                    + (more > 0 ? " and " + more + " more" : "");
        }

        private String beginning(Example example) {
            int first = 0;
            while (first < example.length() - 1 && !example.trained()[first]) {
                first++;
            }
            int end = Math.min(first + NAMED_TOKENS, example.length());
            return model.tokenizer()
                    .decode(Arrays.copyOfRange(example.ids(), first, end))
                    .replaceAll("\\s+", " ")
                    .strip();
        }
    }

    /** Sums over some steps. The clock runs from the making of it until {@link #stop}. */
    private static final class Tally {
        private final long start = System.nanoTime();
        private double lossSum;
        private long trained;
        private long tokens;
        private double seconds;

        Tally() {}

        Tally(TrainerState.Sums sums) {
            lossSum = sums.lossSum();
            trained = sums.trained();
            tokens = sums.tokens();
            seconds = sums.seconds();
        }

        TrainerState.Sums sums() {
            return new TrainerState.Sums(lossSum, trained, tokens, seconds);
        }

        void add(Batch batch, Loss loss) {
            lossSum += loss.sum();
            trained += loss.trained();
            tokens += batch.tokenCount();
        }

        void add(Tally other) {
            lossSum += other.lossSum;
            trained += other.trained;
            tokens += other.tokens;
            seconds += other.seconds;
        }

        void stop() {
            seconds = Math.max(1e-9, (System.nanoTime() - start) / 1e9);
        }

        double meanLoss() {
            return trained == 0 ? Double.NaN : lossSum / trained;
        }
    }
}
