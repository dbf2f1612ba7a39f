package dev.lorica.adapter;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;

/**
 * An adapter, and how strongly it is applied.
 *
 * @param adapter the adapter
 * @param scale   multiplies its effect: 1 is as trained, 0 is nothing, negative is the opposite
 */
public record ScaledAdapter(Adapter adapter, double scale) {
    /**
     * Checks the components.
     *
     * @throws InvalidArgumentException if there is no adapter, or the scale is not finite
     */
    public ScaledAdapter {
        Arguments.given(adapter, "adapter");
        if (!Double.isFinite(scale)) {
            throw new InvalidArgumentException("the scale of an adapter is " + scale + "; it must be finite");
        }
    }
}
