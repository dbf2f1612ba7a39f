package dev.lorica.adapter;

import dev.lorica.Model;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.util.Random;

/**
 * Prompt tuning: embeddings that stand in front of every text and are all that is trained; names and meanings are those of PEFT's
 * {@code PromptTuningConfig}. They count in no length or limit, and positions count them.
 *
 * @param numVirtualTokens {@code num_virtual_tokens}
 * @param init             {@code prompt_tuning_init}: how they begin
 * @param initText         {@code prompt_tuning_init_text}: of {@link Init#TEXT}, cut or repeated; otherwise empty
 * @param seed             of what is random
 */
public record PromptTuningConfig(int numVirtualTokens, Init init, String initText, long seed) implements AdapterConfig {
    /** How the embeddings begin. */
    public enum Init {
        /** N(0, 1), far larger than a model's own embeddings. */
        RANDOM,
        /** As those of random tokens. */
        SAMPLE_VOCAB,
        /** As those of a text. */
        TEXT
    }

    /**
     * Checks the components.
     *
     * @throws InvalidArgumentException naming the one that is wrong
     */
    public PromptTuningConfig {
        Arguments.given(init, "init");
        Arguments.given(initText, "initText");
        Arguments.atLeast(1, numVirtualTokens, "numVirtualTokens");
        if ((init == Init.TEXT) == initText.isEmpty()) {
            throw new InvalidArgumentException(
                    init == Init.TEXT
                            ? "there is no text to begin with"
                            : "a text to begin with is given, and init is " + init + ", not TEXT");
        }
    }

    /**
     * {@return settings whose rows begin as the embeddings of random tokens of the vocabulary}
     *
     * @param numVirtualTokens rows that stand before every text, 1 or more
     */
    public static PromptTuningConfig of(int numVirtualTokens) {
        return new PromptTuningConfig(numVirtualTokens, Init.SAMPLE_VOCAB, "", 42);
    }

    @Override
    public Method method() {
        return Method.PROMPT_TUNING;
    }

    /** The tokens as whose embeddings they begin, {@code null} for none. */
    int[] ids(Model model) {
        if (init == Init.RANDOM) {
            return null;
        }
        if (init == Init.SAMPLE_VOCAB) {
            return new Random(seed)
                    .ints(numVirtualTokens, 0, model.info().vocabSize())
                    .toArray();
        }
        int[] text = model.tokenizer().encode(initText, true, false);
        int[] ids = new int[numVirtualTokens];
        for (int i = 0; i < ids.length; i++) {
            ids[i] = text[i % text.length];
        }
        return ids;
    }
}
