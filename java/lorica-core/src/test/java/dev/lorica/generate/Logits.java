package dev.lorica.generate;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import java.util.Arrays;

/** What a model predicts, number by number. */
public final class Logits {
    private Logits() {}

    /**
     * Behind each of the tokens, which are given one by one.
     *
     * @param adapter {@code null}: the base alone
     */
    public static float[][] of(Model model, Adapter adapter, int... tokens) {
        float[][] all = new float[tokens.length][model.info().vocabSize()];
        try (KvCache cache = new KvCache(model, adapter, tokens.length)) {
            for (int t = 0; t < tokens.length; t++) {
                cache.append(new int[] {tokens[t]}, all[t]);
            }
        }
        return all;
    }

    /** Behind the last of the tokens, which are given together. */
    public static float[] ofLast(Model model, Adapter adapter, int... tokens) {
        float[] logits = new float[model.info().vocabSize()];
        try (KvCache cache = new KvCache(model, adapter, tokens.length)) {
            cache.append(Arrays.copyOf(tokens, tokens.length), logits);
        }
        return logits;
    }
}
