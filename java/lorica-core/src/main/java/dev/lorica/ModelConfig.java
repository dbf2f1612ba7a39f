package dev.lorica;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.util.List;

/**
 * Where and how a model runs.
 *
 * @param device      {@code auto} (the first GPU that works, else the CPU; {@link ModelInfo#deviceReason} says why), {@code cpu}, {@code reference} (plain loops, to compare with), {@code cuda} or {@code cuda:N}
 * @param precision   what matrix products are computed in
 * @param threads     threads of the cpu device; 0: all cores that this process may run on
 * @param useMmap     map the file, so that processes share its pages; false: read it into memory, after which it does not matter what
 *                    happens to the file
 * @param addedTokens tokens behind those of its vocabulary, for adapters that learn them: each begins as the mean of all others. The
 *                    embedding and the head are in memory then. Those that an adapter has: {@code Adapter.addedTokens}
 */
public record ModelConfig(String device, Precision precision, int threads, boolean useMmap, List<String> addedTokens) {
    /**
     * Checks the components.
     *
     * @throws InvalidArgumentException if one is {@code null}, {@code threads} negative, or a token empty or of several lines
     */
    public ModelConfig {
        Arguments.given(device, "device");
        Arguments.given(precision, "precision");
        addedTokens = List.copyOf(Arguments.all(addedTokens, "addedTokens"));
        if (threads < 0) {
            throw new InvalidArgumentException("threads is " + threads + "; it must be 0 (all cores) or more");
        }
        for (String token : addedTokens) {
            if (token.isEmpty() || token.contains("\n")) {
                throw new InvalidArgumentException("a token to add is empty or has several lines");
            }
        }
    }

    /**
     * Without added tokens.
     *
     * @param device    as {@link #device()}
     * @param precision as {@link #precision()}
     * @param threads   as {@link #threads()}
     * @param useMmap   as {@link #useMmap()}
     */
    public ModelConfig(String device, Precision precision, int threads, boolean useMmap) {
        this(device, precision, threads, useMmap, List.of());
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

    /**
     * {@return the same with other tokens behind those of the vocabulary}
     *
     * @param tokens as {@link #addedTokens()}
     */
    public ModelConfig withAddedTokens(List<String> tokens) {
        return new ModelConfig(device, precision, threads, useMmap, tokens);
    }
}
