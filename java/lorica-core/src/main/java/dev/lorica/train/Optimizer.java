package dev.lorica.train;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.NativeSession;
import java.util.Locale;

/** What turns gradients into steps; names are those of Hugging Face's {@code optim}. */
public enum Optimizer {
    /** Loshchilov and Hutter 2019, with two moments of 32 bits for each parameter. */
    ADAMW(NativeSession.OPTIMIZER_ADAMW),
    /** The same with moments of 8 bits in blocks of 256 (Dettmers et al. 2022): a quarter of the memory. */
    ADAMW_8BIT(NativeSession.OPTIMIZER_ADAMW_8BIT);

    final int code;

    Optimizer(int code) {
        this.code = code;
    }

    /**
     * {@return the one of this name; every name that Hugging Face and bitsandbytes have for the two is known}
     *
     * @param name the name
     * @throws InvalidArgumentException naming those that there are
     */
    public static Optimizer of(String name) {
        Arguments.given(name, "name");
        return switch (name.toLowerCase(Locale.ROOT)) {
            case "adamw", "adamw_torch", "adamw_torch_fused", "adamw_hf" -> ADAMW;
            case "adamw_8bit", "adamw_bnb_8bit", "adamw8bit", "paged_adamw_8bit" -> ADAMW_8BIT;
            default ->
                throw new InvalidArgumentException(
                        "there is no optimizer \"" + name + "\"; there are adamw and adamw_8bit");
        };
    }

    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT);
    }
}
