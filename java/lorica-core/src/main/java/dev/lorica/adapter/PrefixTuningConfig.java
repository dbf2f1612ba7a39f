package dev.lorica.adapter;

import dev.lorica.internal.Arguments;

/**
 * Prefix tuning: keys and values that stand in front of every text, of each layer its own, and are all that is trained; as PEFT's
 * {@code PrefixTuningConfig} without {@code prefix_projection}. They begin as N(0, 1), count in no length or limit, and positions
 * count them.
 *
 * @param numVirtualTokens {@code num_virtual_tokens}
 * @param seed             of what they begin with
 */
public record PrefixTuningConfig(int numVirtualTokens, long seed) implements AdapterConfig {
    /**
     * Checks the components.
     *
     * @throws dev.lorica.exceptions.InvalidArgumentException naming the one that is wrong
     */
    public PrefixTuningConfig {
        Arguments.atLeast(1, numVirtualTokens, "numVirtualTokens");
    }

    /**
     * {@return settings without a network: keys and values are trained themselves}
     *
     * @param numVirtualTokens keys and values that stand before every text in each layer, 1 or more
     */
    public static PrefixTuningConfig of(int numVirtualTokens) {
        return new PrefixTuningConfig(numVirtualTokens, 42);
    }

    @Override
    public Method method() {
        return Method.PREFIX_TUNING;
    }
}
