package dev.lorica;

import dev.lorica.data.DataConfig;
import dev.lorica.data.Dataset;
import dev.lorica.data.Packer;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.MemoryException;
import dev.lorica.exceptions.NonFiniteException;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.function.Supplier;

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
 */
public final class Trainer {
    private final Model model;
    private final Adapter adapter;
    private final TrainingConfig config;
    private final List<TrainerListener> listeners = new CopyOnWriteArrayList<>();
    private volatile boolean stopRequested;

    public Trainer(Model model, Adapter adapter, TrainingConfig config) {
        if (adapter.model() != model) {
            throw new InvalidArgumentException("the adapter belongs to another model; make it with this model's newAdapter");
        }
        this.model = model;
        this.adapter = adapter;
        this.config = Objects.requireNonNull(config, "config");
    }

    /** Listeners hear of everything in the order in which they were added. */
    public Trainer addListener(TrainerListener listener) {
        listeners.add(Objects.requireNonNull(listener, "listener"));
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
     * accumulated for a step that is not complete is given up. Callable from any thread, also before {@code train}.
     */
    public void requestStop() {
        stopRequested = true;
    }

    /** What {@link #train(TokenizedDataset, TokenizedDataset)} is going to do, and what memory that needs. */
    public TrainingPlan plan(TokenizedDataset data, TokenizedDataset evalData) {
        int microBatches = Packer.batchCount(data, config.batchSize());
        int stepsPerEpoch = stepsPerEpoch(config, microBatches);
        int totalSteps = totalSteps(config, stepsPerEpoch);
        TrainSession.Shape shape = shape(data, evalData, ceilDiv(totalSteps, stepsPerEpoch));
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
                TrainSession.plan(model, adapter, config, shape));
    }

    /**
     * @param evalData what is evaluated on while training and at its end; {@code null}: nothing
     * @throws MemoryException    before the first step, if the session does not fit in memory; the message says what would
     * @throws NonFiniteException if a loss or gradient is not finite; the message names the step. The adapter then is as it was
     *                            after the step before.
     */
    public TrainingResult train(TokenizedDataset data, TokenizedDataset evalData) {
        TrainingPlan plan = plan(data, evalData);
        TrainSession.Shape shape =
                new TrainSession.Shape(plan.largestBatch(), plan.mostSequences(), plan.longestExample());
        try (TrainSession session = new TrainSession(model, adapter, config, shape)) {
            listeners.forEach(listener -> listener.onStart(plan));
            TrainingResult result = new Run(plan, session, data, evalData).run();
            TokenizerInfo tokens = model.tokenizer().info();
            adapter.trained(adapter.metadata()
                    .trained(
                            data.report().template(),
                            new AdapterMetadata.SpecialTokens(tokens.addBos() ? tokens.bos() : -1, tokens.eos()),
                            config,
                            result));
            listeners.forEach(listener -> listener.onEnd(result));
            return result;
        } finally {
            stopRequested = false;
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
    private TrainSession.Shape shape(TokenizedDataset data, TokenizedDataset evalData, int epochs) {
        TrainSession.Shape shape = new TrainSession.Shape(1, 1, 1);
        for (int epoch = 0; epoch < (config.shuffle() ? epochs : 1); epoch++) {
            shape = shape.max(TrainSession.Shape.largest(batches(data, epoch)));
        }
        return evalData == null
                ? shape
                : shape.max(TrainSession.Shape.largest(Packer.inOrder(evalData, evalBatchSize())));
    }

    private List<Batch> batches(TokenizedDataset data, int epoch) {
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

        private final long start = System.nanoTime();
        private int step;
        private double epoch;
        private Tally total = new Tally();
        private Tally sinceLog = new Tally();
        private Evaluation evaluation;
        private int evaluatedStep = -1;

        Run(TrainingPlan plan, TrainSession session, TokenizedDataset data, TokenizedDataset evalData) {
            this.plan = plan;
            this.session = session;
            this.data = data;
            this.evalData = evalData;
            this.learningRate = new LearningRate(config, plan.totalSteps());
        }

        TrainingResult run() {
            boolean stopped = false;
            for (int pass = 0; step < plan.totalSteps() && !stopped; pass++) {
                List<Batch> batches = batches(data, pass);
                int accumulation = config.gradientAccumulationSteps();
                for (int first = 0; first < batches.size() && step < plan.totalSteps(); first += accumulation) {
                    int end = Math.min(first + accumulation, batches.size());
                    Tally group = accumulate(batches.subList(first, end));
                    if (group == null) {
                        stopped = true;
                        break;
                    }
                    epoch = pass + (double) end / batches.size();
                    step(group, end == batches.size());
                }
            }
            if (evalData != null && !stopped && evaluatedStep != step) {
                evaluate();
            }
            return new TrainingResult(
                    step, epoch, total.meanLoss(), total.tokens, total.trained, seconds(), stopped, evaluation);
        }

        /** Adds up the gradients of a group; {@code null} when training is to stop before the group is complete. */
        private Tally accumulate(List<Batch> group) {
            Tally tally = new Tally();
            for (Batch batch : group) {
                if (stopRequested) {
                    return null;
                }
                tally.add(batch, naming(() -> session.forwardBackward(batch)));
            }
            return tally;
        }

        private void step(Tally group, boolean endOfEpoch) {
            double rate = learningRate.at(step);
            double norm = naming(
                    () -> session.optimizerStep(rate, config.weightDecay(), 1.0 / group.trained, config.maxGradNorm()));
            step++;
            group.stop();
            total.add(group);
            sinceLog.add(group);

            TrainingProgress progress = progress(group, rate, norm);
            listeners.forEach(listener -> listener.onStep(progress));
            if (step % config.loggingSteps() == 0 || step == plan.totalSteps()) {
                TrainingProgress log = progress(sinceLog, rate, norm);
                listeners.forEach(listener -> listener.onLog(log));
                sinceLog = new Tally();
            }
            boolean evaluationDue = config.evalSteps() > 0 ? step % config.evalSteps() == 0 : endOfEpoch;
            if (evalData != null && evaluationDue) {
                evaluate();
            }
        }

        private void evaluate() {
            Evaluation result = naming(() -> Evaluator.evaluate(session, evalData, evalBatchSize(), () -> stopRequested));
            if (result != null) {
                evaluation = result;
                evaluatedStep = step;
                listeners.forEach(listener -> listener.onEvaluate(step, result));
            }
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
                    seconds,
                    seconds / step * (plan.totalSteps() - step));
        }

        private double seconds() {
            return (System.nanoTime() - start) / 1e9;
        }

        /** Says at which step a number went wrong, and what usually helps. */
        private <T> T naming(Supplier<T> call) {
            try {
                return call.get();
            } catch (NonFiniteException e) {
                throw new NonFiniteException(
                        String.format(
                                Locale.ROOT,
                                "training step %d of %d: %s; try a lower learning rate (it is %.3g) or a longer warm-up",
                                step + 1,
                                plan.totalSteps(),
                                e.getMessage(),
                                learningRate.at(step)),
                        e);
            }
        }
    }

    /** Sums over some steps. The clock runs from the making of it until {@link #stop}. */
    private static final class Tally {
        private final long start = System.nanoTime();
        private double lossSum;
        private long trained;
        private long tokens;
        private double seconds;

        void add(Batch batch, TrainSession.Loss loss) {
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
