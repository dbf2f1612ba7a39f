package dev.lorica.train;

import java.nio.file.Path;
import java.util.List;

/**
 * How a run goes on from a checkpoint.
 *
 * @param step              optimizer steps done
 * @param totalSteps        optimizer steps of the run
 * @param epoch             passes over the data done, with a fraction
 * @param checkpoint        what it goes on from
 * @param evaluationPending whether the evaluation that is due after this step is still to be done
 * @param changes           settings that are not what they were, so that the run does not end as it would have; in words
 */
public record Resumption(
        int step, int totalSteps, double epoch, Path checkpoint, boolean evaluationPending, List<String> changes) {
    /** Copies the list of changes. */
    public Resumption {
        changes = List.copyOf(changes);
    }
}
