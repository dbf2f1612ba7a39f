package dev.lorica;

import java.util.Locale;

/** Whether activations are kept from the forward to the backward pass, or computed again. The gradients are the same. */
public enum Checkpointing {
    /** Off when the memory plan fits without, else on. */
    AUTO,
    /** Keep them: faster. */
    OFF,
    /** Keep one activation per layer and compute the rest again: less memory, about a third more time. */
    ON;

    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
