package dev.lorica.train;

/**
 * What a training session needs, in bytes, by component.
 *
 * @param weights          the mapped model file, or its copy on the device
 * @param adapter          A and B
 * @param gradients        their gradients
 * @param optimizer        AdamW's two moments
 * @param activations      what is kept from the forward to the backward pass
 * @param workspace        scratch of single operations, all threads together
 * @param total            the sum of these
 * @param available        what the total is held against
 * @param recomputedLayers layers whose activations are computed again in the backward pass, which is what these numbers are for
 * @param fits             whether the session can be made
 */
public record MemoryPlan(
        long weights,
        long adapter,
        long gradients,
        long optimizer,
        long activations,
        long workspace,
        long total,
        long available,
        int recomputedLayers,
        boolean fits) {}
