package dev.lorica;

/**
 * Hears how training goes. Calls come on the thread that trains, in this order: {@link #onStart}; for each step
 * {@link #onStep}, then {@link #onLog} and {@link #onEvaluate} where they are due; {@link #onEnd}. A listener may call
 * {@link Trainer#requestStop}. An exception from a listener ends the run and reaches the caller of {@code train}.
 */
public interface TrainerListener {
    /** The session is allocated, nothing is trained yet. */
    default void onStart(TrainingPlan plan) {}

    /** After every optimizer step; for progress bars. */
    default void onStep(TrainingProgress progress) {}

    /** Every {@link TrainingConfig#loggingSteps} steps and after the last one. */
    default void onLog(TrainingProgress progress) {}

    /** After an evaluation, which was done after optimizer step {@code step}. */
    default void onEvaluate(int step, Evaluation evaluation) {}

    /** The run is over, or was stopped. Not called when it ends with an exception. */
    default void onEnd(TrainingResult result) {}
}
