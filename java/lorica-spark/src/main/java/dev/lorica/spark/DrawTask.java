package dev.lorica.spark;

import dev.lorica.generate.BatchGenerator;
import dev.lorica.generate.GenerationResult;
import java.io.Serializable;
import java.util.List;

/**
 * Answers that one executor draws at once.
 *
 * @param number   of the call among those of the step
 * @param requests the prompts, each with a seed of its own
 */
record DrawTask(int number, List<BatchGenerator.Request> requests) implements Serializable {

    /**
     * What comes of it.
     *
     * @param number  of the call
     * @param texts   one for each request
     * @param trouble what went wrong; {@code null}: nothing
     */
    record Result(int number, List<GenerationResult> texts, Trouble trouble) implements Serializable {}
}
