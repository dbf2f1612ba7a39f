package dev.lorica.train;

import dev.lorica.eval.Evaluation;
import dev.lorica.exceptions.LoricaException;
import java.nio.file.Path;

/**
 * Hears how training goes. Calls come on the thread that trains, in this order: {@link #onStart}, and {@link #onResume} where a
 * run goes on; for each step {@link #onStep}, then {@link #onLog}, {@link #onEvaluate} and {@link #onSave} where they are due;
 * {@link #onEnd}. A listener may call {@link Trainer#requestStop}. An exception from a listener ends the run and reaches the
 * caller of {@code train}.
 */
public interface TrainerListener {
    /**
     * The session is allocated, nothing is trained yet.
     *
     * @param plan steps, batches and memory
     */
    default void onStart(TrainingPlan plan) {}

    /**
     * What was saved is restored; the next step is the one after the checkpoint's.
     *
     * @param resumption what was restored
     */
    default void onResume(Resumption resumption) {}

    /** After every micro-batch, before the optimizer step; for steps that take long. */
    default void onMicroBatch() {}

    /**
     * After every optimizer step; for progress bars.
     *
     * @param progress where the run is
     */
    default void onStep(TrainingProgress progress) {}

    /**
     * Every {@link TrainingConfig#loggingSteps} steps and after the last one.
     *
     * @param progress where the run is
     */
    default void onLog(TrainingProgress progress) {}

    /**
     * After an evaluation, which was done after optimizer step {@code step}.
     *
     * @param step       optimizer steps done
     * @param evaluation what was measured
     */
    default void onEvaluate(int step, Evaluation evaluation) {}

    /**
     * A checkpoint was written.
     *
     * @param step       optimizer steps done
     * @param checkpoint its folder
     */
    default void onSave(int step, Path checkpoint) {}

    /**
     * A checkpoint could not be written, as on a full disk. The ones before are in place, and training goes on.
     *
     * @param step   optimizer steps done
     * @param reason why
     */
    default void onSaveFailed(int step, LoricaException reason) {}

    /**
     * The run is over, or was stopped. Not called when it ends with an exception.
     *
     * @param result what came out
     */
    default void onEnd(TrainingResult result) {}
}
