package dev.lorica;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;

/**
 * Where and how a model runs.
 *
 * @param device    {@code auto} (the first GPU that works, else the CPU; {@link ModelInfo#deviceReason} says why), {@code cpu}, {@code reference} (plain loops, to compare with), {@code cuda} or {@code cuda:N}
 * @param precision what matrix products are computed in
 * @param threads   threads of the cpu device; 0: all cores that this process may run on
 * @param useMmap   map the file, so that processes share its pages; false: read it into memory, after which it does not matter what
 *                  happens to the file
 */
public record ModelConfig(String device, Precision precision, int threads, boolean useMmap) {
    /**
     * Checks the components.
     *
     * @throws InvalidArgumentException if one is {@code null}, or {@code threads} negative
     */
    public ModelConfig {
        Arguments.given(device, "device");
        Arguments.given(precision, "precision");
        if (threads < 0) {
            throw new InvalidArgumentException("threads is " + threads + "; it must be 0 (all cores) or more");
        }
    }

    /**
     * With the file mapped.
     *
     * @param device    as {@link #device()}
     * @param precision as {@link #precision()}
     * @param threads   as {@link #threads()}
     */
    public ModelConfig(String device, Precision precision, int threads) {
        this(device, precision, threads, true);
    }

    /** {@return device {@code auto}, the precision that suits it, all cores, the file mapped} */
    public static ModelConfig defaults() {
        return new ModelConfig("auto", Precision.AUTO, 0);
    }
}
