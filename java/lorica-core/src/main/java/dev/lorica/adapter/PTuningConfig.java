package dev.lorica.adapter;

import dev.lorica.internal.Arguments;

/**
 * P-tuning: embeddings that stand in front of every text, as in prompt tuning, and come out of a small network, which is what is
 * trained; names and meanings are those of PEFT's {@code PromptEncoderConfig} with the reparameterization {@code MLP}.
 *
 * @param numVirtualTokens  {@code num_virtual_tokens}
 * @param encoderHiddenSize {@code encoder_hidden_size}; 0: that of the embeddings
 * @param seed              of what the network begins with
 */
public record PTuningConfig(int numVirtualTokens, int encoderHiddenSize, long seed) implements AdapterConfig {
    /**
     * Checks the components.
     *
     * @throws dev.lorica.exceptions.InvalidArgumentException naming the one that is wrong
     */
    public PTuningConfig {
        Arguments.atLeast(1, numVirtualTokens, "numVirtualTokens");
        Arguments.atLeast(0, encoderHiddenSize, "encoderHiddenSize");
    }

    /**
     * {@return settings with a network as wide as the embeddings}
     *
     * @param numVirtualTokens rows that stand before every text, 1 or more
     */
    public static PTuningConfig of(int numVirtualTokens) {
        return new PTuningConfig(numVirtualTokens, 0, 42);
    }

    @Override
    public Method method() {
        return Method.P_TUNING;
    }
}
