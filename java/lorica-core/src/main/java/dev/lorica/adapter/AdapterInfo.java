package dev.lorica.adapter;

import java.util.List;

/**
 * What an adapter is.
 *
 * @param rank            of its first pair; those of an adapter from elsewhere may differ
 * @param alpha           the product B A is scaled by alpha / rank
 * @param scale           that quotient (alpha / √rank for rsLoRA), times the factor of {@link Adapter#setScale}
 * @param dropout         while training
 * @param useRslora       whether it was made as rsLoRA
 * @param useDora         whether its magnitudes are trained too, as in DoRA
 * @param pairs           (A, B) pairs
 * @param parameters      trainable elements
 * @param targetModules   the modules that it changes, by their Hugging Face names
 * @param baseFingerprint of the base that it was trained on, {@code ""} when its file does not say
 * @param method          rank, alpha and pairs are 0 where it is not LoRA
 * @param virtualTokens   in front of every text
 */
public record AdapterInfo(
        int rank,
        double alpha,
        double scale,
        double dropout,
        boolean useRslora,
        boolean useDora,
        int pairs,
        long parameters,
        List<String> targetModules,
        String baseFingerprint,
        Method method,
        int virtualTokens) {}
