package dev.lorica.internal;

import java.util.function.BiFunction;
import java.util.function.ToIntFunction;
import org.bytedeco.javacpp.Pointer;

/** Structs of the C ABI, which begin with their size: so they can grow. */
public final class Structs {
    private Structs() {}

    /** With its size set: {@code sized(new lorica_model_info(), lorica_model_info::struct_size)}. */
    public static <S extends Pointer> S sized(S struct, BiFunction<S, Long, S> setSize) {
        return setSize.apply(struct, (long) struct.sizeof());
    }

    /** With its size set and filled with defaults, by one of {@code lorica_*_default_params}. */
    public static <S extends Pointer> S defaults(S struct, BiFunction<S, Long, S> setSize, ToIntFunction<S> fill) {
        Status.check(fill.applyAsInt(sized(struct, setSize)));
        return struct;
    }
}
