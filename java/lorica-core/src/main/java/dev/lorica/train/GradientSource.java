package dev.lorica.train;

import dev.lorica.data.Batch;
import java.util.List;

/**
 * Where gradients come from. A group of micro-batches goes in; their gradients, added up, are then where the optimizer takes them, and
 * what they add up to comes back. {@link LocalSession} computes them one after another on this machine. Whoever computes them, the
 * loop, its schedules, checkpoints and logs are the same.
 */
interface GradientSource {

    /** What the loop wants to know while gradients are computed. Numbers are places in the group, from 0. */
    interface Watch {
        /** Before a micro-batch; false: training is to stop, and the group is given up. */
        boolean begins(int number);

        /** After a micro-batch. */
        void ends(int number);
    }

    /** Where the run is, before each group: what is drawn depends on it, and what the next steps need of this one goes there. */
    default void at(TrainerState state) {}

    /**
     * Adds up the gradients of a group, which begins with none.
     *
     * @param group the micro-batches of one optimizer step; each is made when it is asked for
     * @return {@code null} when {@code watch} ended it
     */
    GradientSums accumulate(List<Batch> group, Watch watch);
}
