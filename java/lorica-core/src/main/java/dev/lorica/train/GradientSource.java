package dev.lorica.train;

import dev.lorica.data.Batch;
import java.util.List;

/**
 * Where gradients come from. A group of micro-batches goes in; their gradients, added up, are then where the optimizer takes them, and
 * what they add up to comes back. {@link LocalSession} computes them one after another on this machine, {@link WorkersSource} has them
 * computed elsewhere. Whoever computes them, the loop, its schedules, checkpoints and logs are the same.
 */
interface GradientSource {

    /** Where the run is, before each group: what is drawn depends on it, and what the next steps need of this one goes there. */
    default void at(TrainerState state) {}

    /**
     * Adds up the gradients of a group, which begins with none.
     *
     * @param group the micro-batches of one optimizer step; each is made when it is asked for
     * @param first number of the first of them in the whole training, from 0, which seeds its dropout and noise
     * @return {@code null} when {@code watch} ended it
     */
    GradientSums accumulate(List<Batch> group, long first, GradientWorkers.Watch watch);
}
