package dev.lorica.train;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.AdapterMetadata;
import dev.lorica.data.Batch;
import dev.lorica.data.Packer;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.ClassMetrics;
import dev.lorica.eval.Evaluation;
import dev.lorica.eval.Evaluator;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.NonFiniteException;
import dev.lorica.exceptions.RewardException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.function.BooleanSupplier;
import java.util.function.Consumer;
import java.util.function.Supplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * One run: passes over the data, steps, and what is due after a step. What it counts is in its {@link TrainerState}, which is what
 * a checkpoint keeps. Gradients come from a {@link GradientSource}.
 */
final class TrainingLoop {
    private static final Logger LOG = LoggerFactory.getLogger(TrainingLoop.class);

    /** What a run works with. */
    record Run(
            Model model,
            Adapter adapter,
            TrainingPlan plan,
            TokenizedDataset data,
            TokenizedDataset evalData,
            Path folder,
            List<TrainerListener> listeners,
            BooleanSupplier stop,
            Consumer<TrainingResult> describe,
            Objective objective) {}

    private final Run run;
    private final TrainingConfig config;
    private final TrainingPlan plan;
    private final LocalSession session;
    private final GradientSource gradients;
    private final LearningRate learningRate;
    private final LocalSession.Speed speed;
    private final ExampleNames names;
    /** Steps that are taken with each group of micro-batches. */
    private final int iterations;

    private final long start = System.nanoTime();
    private double secondsBefore;
    private TrainerState state = new TrainerState();
    private boolean savePending;
    private int savedStep;
    private Path lastCheckpoint;

    /**
     * @param session   what is trained, and takes the steps
     * @param gradients leaves its sums in {@code session}, and may be that
     * @param checksums whether checkpoints are written or gone on from, which needs to tell data apart
     */
    TrainingLoop(Run run, LocalSession session, GradientSource gradients, boolean checksums) {
        this.run = run;
        this.plan = run.plan();
        this.config = plan.config();
        this.session = session;
        this.gradients = gradients;
        this.speed = session.measureSpeed();
        this.learningRate = new LearningRate(config, plan.totalSteps());
        this.iterations = Trainer.iterations(run.objective());
        this.names = new ExampleNames(run.data(), run.model().tokenizer());
        state.config = config;
        state.baseModel = AdapterMetadata.BaseModel.of(run.model());
        state.adapter = run.adapter().info();
        state.objective = run.objective().inWords();
        if (run.objective().usesTeacher()) {
            state.teacher = run.data().teacher().header().teacher();
        }
        if (checksums) {
            state.data = TrainerState.checksum(run.data());
            state.evalData = run.evalData() == null ? null : TrainerState.checksum(run.evalData());
        }
    }

    /** Goes on from a checkpoint. */
    Resumption restore(Checkpoint checkpoint) {
        TrainerState saved = checkpoint.state();
        if (!saved.baseModel.fingerprint().equals(state.baseModel.fingerprint())) {
            throw new MismatchException(checkpoint.path() + " belongs to a run on " + saved.baseModel.inWords()
                    + ", not on " + state.baseModel.inWords());
        }
        List<String> obstacles = saved.obstacles(state);
        if (saved.step > plan.totalSteps()) {
            obstacles.add("it is at step " + saved.step + ", and the run ends with step " + plan.totalSteps());
        }
        if (!obstacles.isEmpty()) {
            throw new MismatchException("the run cannot go on from " + checkpoint.path() + ": "
                    + String.join("; ", obstacles) + ". Give it what it had, or begin anew in another folder");
        }
        session.loadState(checkpoint.trainingState());
        List<String> changes = new ArrayList<>(saved.changes(state));
        saved.config = state.config;
        saved.data = state.data;
        saved.evalData = state.evalData;
        state = saved;
        secondsBefore = saved.seconds;
        state.evaluationPending &= run.evalData() != null;
        savePending = state.evaluationPending;
        savedStep = state.step;
        lastCheckpoint = checkpoint.path();
        if (config.loadBestModelAtEnd() && state.bestStep != 0 && !Checkpoint.isWhole(run.folder(), state.bestStep)) {
            changes.add("the best checkpoint so far, of step " + state.bestStep + ", is not in " + run.folder()
                    + ": the search for it begins anew");
            state.bestStep = 0;
        }
        return new Resumption(
                state.step, plan.totalSteps(), state.epoch, checkpoint.path(), state.evaluationPending, changes);
    }

    TrainingResult run() {
        if (run.folder() != null) {
            Checkpoint.deleteUnfinished(run.folder());
        }
        boolean stopped = !settle();
        while (!stopped && state.step < plan.totalSteps() && !patienceIsOver()) {
            stopped = !trainPass();
        }
        run.model().requireUnchanged(); // what was trained on another file than it began with is no result
        boolean stoppedEarly = !stopped && state.step < plan.totalSteps();
        if (state.step > 0) {
            requireFinite();
        }
        if (stopped && state.step > 0 && savedStep != state.step) {
            save();
        }
        if (!stopped && config.loadBestModelAtEnd() && state.bestStep != 0 && state.bestStep != state.step) {
            session.loadState(Checkpoint.open(Checkpoint.path(run.folder(), state.bestStep))
                    .trainingState());
            return result(false, stoppedEarly, evaluate(() -> false));
        }
        return result(stopped, stoppedEarly, state.evaluation);
    }

    /** Goes on with the pass to its end; false when training is to stop before. */
    private boolean trainPass() {
        Packer.Batches batches = Trainer.batches(config, run.data(), state.pass);
        while (state.microBatch < batches.size()) {
            int begin = state.microBatch;
            int end = (int) Math.min((long) begin + config.gradientAccumulationSteps(), batches.size());
            long groupStart = System.nanoTime();
            GradientSums group = judged(() -> accumulate(batches, begin, end));
            if (group == null) {
                return false;
            }
            boolean again = state.iteration + 1 < iterations;
            boolean endOfPass = !again && end == batches.size();
            double part = (state.iteration + 1.0) / iterations;
            state.epoch = state.pass + (begin + (end - begin) * part) / batches.size();
            state.microBatch = again ? begin : endOfPass ? 0 : end;
            state.iteration = again ? state.iteration + 1 : 0;
            state.answers = again ? state.answers : null;
            state.pass += endOfPass ? 1 : 0;
            step(group, groupStart, () -> inWords(batches, begin, end), endOfPass);
            if (!settle()) {
                return false;
            }
            if (endOfPass || state.step == plan.totalSteps() || patienceIsOver()) {
                return true;
            }
        }
        return true;
    }

    private boolean patienceIsOver() {
        return config.earlyStoppingPatience() > 0 && state.evaluationsWithoutGain >= config.earlyStoppingPatience();
    }

    /** Where answers cannot be judged, what was trained so far is kept. */
    private <T> T judged(Supplier<T> call) {
        try {
            return call.get();
        } catch (RewardException e) {
            if (state.step > 0 && savedStep != state.step) {
                save();
            }
            throw lastCheckpoint == null
                    ? e
                    : new RewardException(e.getMessage() + "; " + lastCheckpoint + " holds what was trained before", e);
        }
    }

    /** The gradients of a group of micro-batches; {@code null} when training is to stop before they are complete. */
    private GradientSums accumulate(Packer.Batches batches, int begin, int end) {
        int[] running = {0, 0};
        long first = (long) state.pass * batches.size() + begin;
        gradients.at(state);
        return naming(
                () -> gradients.accumulate(batches.subList(begin, end), first, new GradientWorkers.Watch() {
                    @Override
                    public boolean begins(int number) {
                        running[1] = number + 1;
                        return !run.stop().getAsBoolean();
                    }

                    @Override
                    public void ends(int number) {
                        running[0] = number + 1;
                        run.listeners().forEach(TrainerListener::onMicroBatch);
                    }

                    @Override
                    public void fails(int number) {
                        running[0] = number;
                        running[1] = number + 1;
                    }
                }),
                () -> inWords(batches, begin + running[0], begin + Math.max(running[0] + 1, running[1])));
    }

    private void step(GradientSums group, long groupStart, Supplier<String> examples, boolean endOfEpoch) {
        double rate = learningRate.at(state.step);
        double norm = naming(
                () -> session.optimizerStep(rate, config.weightDecay(), group.scale(), config.maxGradNorm()), examples);
        state.step++;
        Sums sums = Sums.of(group, Math.max(1e-9, (System.nanoTime() - groupStart) / 1e9));
        state.total = state.total.plus(sums);
        state.sinceLog = state.sinceLog.plus(sums);

        TrainingProgress progress = progress(sums, rate, norm);
        run.listeners().forEach(listener -> listener.onStep(progress));
        boolean last = state.step == plan.totalSteps();
        if (state.step % config.loggingSteps() == 0 || last) {
            TrainingProgress log = progress(state.sinceLog, rate, norm);
            run.listeners().forEach(listener -> listener.onLog(log));
            state.sinceLog = Sums.NONE;
        }
        boolean evaluates = run.evalData() != null && config.evalStrategy() != IntervalStrategy.NO;
        state.evaluationPending =
                evaluates && (last || config.evalStrategy().isDue(state.step, config.evalSteps(), endOfEpoch));
        savePending = run.folder() != null && config.saveStrategy().isDue(state.step, config.saveSteps(), endOfEpoch);
    }

    /** Does what is due after a step; false when training is to stop before that is done. */
    private boolean settle() {
        if (state.evaluationPending) {
            Evaluation result = evaluate(run.stop());
            if (result == null) {
                return false;
            }
            state.evaluationPending = false;
            state.evaluation = result;
            run.listeners().forEach(listener -> listener.onEvaluate(state.step, result));
            double toBeat = run.objective().toBeat(result);
            boolean gain = state.bestStep == 0 || toBeat < state.bestLoss - config.earlyStoppingThreshold();
            state.evaluationsWithoutGain = gain ? 0 : state.evaluationsWithoutGain + 1;
            if (state.isBest(toBeat)) {
                keepBest(toBeat);
            }
        }
        if (savePending) {
            savePending = false;
            save();
        }
        return true;
    }

    private void keepBest(double loss) {
        int stepBefore = state.bestStep;
        double lossBefore = state.bestLoss;
        state.bestStep = state.step;
        state.bestLoss = loss;
        if (config.loadBestModelAtEnd()) {
            savePending = false;
            if (!save()) {
                // What is not kept cannot be loaded at the end.
                state.bestStep = stepBefore;
                state.bestLoss = lossBefore;
            }
        }
    }

    private Evaluation evaluate(BooleanSupplier stop) {
        return naming(
                () -> judged(() -> gradients instanceof Rollouts rollouts
                        ? rollouts.evaluate(run.evalData(), Trainer.evalBatchSize(config), stop)
                        : evaluate(session, run.objective(), run.evalData(), Trainer.evalBatchSize(config), stop)),
                () -> "evaluation after step " + state.step + " of " + plan.totalSteps());
    }

    /** {@code null} when {@code stop} became true before the end. */
    static Evaluation evaluate(
            LocalSession session, Objective objective, TokenizedDataset data, int batchSize, BooleanSupplier stop) {
        if (objective == Sft.INSTANCE && data.weights() == null) {
            return Evaluator.evaluate(session::evaluate, data, batchSize, stop);
        }
        long start = System.nanoTime();
        GradientSums total = GradientSums.NONE;
        ClassMetrics classes =
                objective instanceof Classification classification ? new ClassMetrics(classification.labels()) : null;
        for (Batch batch : Packer.inOrder(data, batchSize)) {
            if (stop.getAsBoolean()) {
                return null;
            }
            total = total.plus(session.measure(batch, classes));
        }
        return new Evaluation(
                total.lossSum() / total.units(),
                total.trained(),
                total.tokens(),
                data.size(),
                (System.nanoTime() - start) / 1e9,
                classes == null ? total.metrics().means() : classes.values());
    }

    /** Whether that succeeded. */
    private boolean save() {
        if (run.folder() == null) {
            return false;
        }
        requireFinite();
        try {
            run.describe().accept(result(true, false, state.evaluation));
            state.seconds = seconds();
            Path checkpoint = Checkpoint.write(run.folder(), state, run.adapter(), session);
            savedStep = state.step;
            lastCheckpoint = checkpoint;
            run.listeners().forEach(listener -> listener.onSave(state.step, checkpoint));
            Checkpoint.rotate(run.folder(), config.saveTotalLimit(), config.loadBestModelAtEnd() ? state.bestStep : 0);
        } catch (MismatchException e) {
            throw e; // the model's file is another one: going on is of no use
        } catch (LoricaException e) {
            LOG.warn("checkpoint of step {}: {}", state.step, e.getMessage());
            run.listeners().forEach(listener -> listener.onSaveFailed(state.step, e));
        }
        return savedStep == state.step;
    }

    /** A step can be finite and what it leads to not; nothing of that is kept. */
    private void requireFinite() {
        naming(
                () -> {
                    run.adapter().requireFinite();
                    return null;
                },
                () -> "after step " + state.step + " of " + plan.totalSteps());
    }

    private TrainingResult result(boolean stopped, boolean stoppedEarly, Evaluation last) {
        return new TrainingResult(
                state.step,
                state.epoch,
                state.total.meanLoss(),
                state.total.tokens(),
                state.total.trained(),
                seconds(),
                stopped,
                stoppedEarly,
                state.bestStep,
                last);
    }

    private TrainingProgress progress(Sums over, double rate, double norm) {
        double seconds = seconds();
        double tokensPerSecond = over.tokens() / over.seconds();
        return new TrainingProgress(
                state.step,
                plan.totalSteps(),
                state.epoch,
                over.meanLoss(),
                rate,
                norm,
                state.total.tokens(),
                state.total.trained(),
                tokensPerSecond,
                speed.utilization(tokensPerSecond),
                seconds,
                seconds / state.step * (plan.totalSteps() - state.step),
                over.metrics().means());
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
                            learningRate.at(Math.min(state.step, plan.totalSteps() - 1)),
                            lastCheckpoint == null ? "" : "; " + lastCheckpoint + " is as it was"),
                    e);
        }
    }

    private String inWords(Packer.Batches batches, int from, int end) {
        return "training step " + (state.step + 1) + " of " + plan.totalSteps() + ", " + names.of(batches, from, end);
    }
}
