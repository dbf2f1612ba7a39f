package dev.lorica.internal;

import java.util.function.BiFunction;
import java.util.function.Function;
import java.util.function.ToIntFunction;
import org.bytedeco.javacpp.Pointer;

/** Structs of the C ABI, which begin with their size: so they can grow. */
public final class Structs {
    private Structs() {}

    /** With its size set: {@code sized(lorica_model_info::new, lorica_model_info::struct_size)}. */
    public static <S extends Pointer> S sized(Function<Pointer, S> at, BiFunction<S, Long, S> setSize) {
        long size = at.apply(null).sizeof();
        return setSize.apply(at.apply(Memory.of(size)), size);
    }

    /** With its size set and filled with defaults, by one of {@code lorica_*_default_params}. */
    public static <S extends Pointer> S defaults(
            Function<Pointer, S> at, BiFunction<S, Long, S> setSize, ToIntFunction<S> fill) {
        S struct = sized(at, setSize);
        Status.check(fill.applyAsInt(struct));
        return struct;
    }
}
