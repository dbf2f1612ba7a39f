package dev.lorica.internal;

import java.util.function.Function;

/**
 * What a public class gives to the other packages of this library and to nobody else, as this package is not exported. The class
 * itself says how, in its static initializer; whoever holds an object of it may then ask.
 *
 * <pre>{@code
 * static {
 *     Inner.MODEL.of(Model.class, model -> model.engine);
 * }
 * }</pre>
 *
 * @param <N> what is given
 */
public final class Inner<N> {
    /** Of {@code dev.lorica.Model}. */
    public static final Inner<NativeModel> MODEL = new Inner<>();
    /** Of {@code dev.lorica.adapter.Adapter}. */
    public static final Inner<NativeAdapter> ADAPTER = new Inner<>();

    private volatile Function<Object, N> way;

    private Inner() {}

    /** Called once, by the class that the objects are of. */
    public <T> void of(Class<T> owner, Function<T, N> way) {
        this.way = object -> way.apply(owner.cast(object));
    }

    /** What {@code object} has inside. */
    public N of(Object object) {
        return way.apply(object);
    }
}
