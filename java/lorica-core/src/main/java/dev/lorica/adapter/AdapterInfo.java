package dev.lorica.adapter;

import java.util.List;

/**
 * What an adapter is.
 *
 * @param rank            of its first pair; those of an adapter from elsewhere may differ. Of PiSSA twice the rank that was asked
 *                        for, and so is alpha (with rsLoRA √2 of it)
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
 * @param frozenHalf      of PiSSA: the second half of each rank takes away what the first began as, and is not trained
 * @param bottleneck      {@code "houlsby, 36 wide, swish"}; {@code null}: it is of another method
 * @param invocationTokens of an activated LoRA: with which it begins in a text; empty of all else
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
        int virtualTokens,
        boolean frozenHalf,
        String bottleneck,
        List<Integer> invocationTokens) {
    /** Copies the tokens of the invocation. */
    public AdapterInfo {
        invocationTokens = invocationTokens == null ? List.of() : List.copyOf(invocationTokens); // of older checkpoints
    }
}
