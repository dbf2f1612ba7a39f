package dev.lorica.train;

import dev.lorica.internal.NativeSession;
import java.util.Locale;

/** Whether activations are kept from the forward to the backward pass, or computed again. The gradients are the same. */
public enum Recomputation {
    /** Compute as few layers again as leave a tenth of the free memory, or fit into {@link TrainingConfig#memoryLimit()}. */
    AUTO(NativeSession.RECOMPUTATION_AUTO),
    /** Keep them: faster. */
    OFF(NativeSession.RECOMPUTATION_OFF),
    /**
     * Of each layer but the last keep its input and what its attention put out, and compute the rest again: less memory, about a third
     * more time.
     */
    ON(NativeSession.RECOMPUTATION_ON);

    final int code;

    Recomputation(int code) {
        this.code = code;
    }

    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
