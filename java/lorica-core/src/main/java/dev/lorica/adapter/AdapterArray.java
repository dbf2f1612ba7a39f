package dev.lorica.adapter;

import dev.lorica.internal.c.lorica_adapter;
import java.util.List;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.PointerPointer;

/** Adapters and scales as the C ABI takes them. */
public final class AdapterArray {
    /** A native call with n adapters. */
    public interface Call<R> {
        R apply(PointerPointer<lorica_adapter> adapters, FloatPointer scales, int n);
    }

    private AdapterArray() {}

    /** A call during which none of the adapters changes. */
    public static <R> R with(List<ScaledAdapter> adapters, Call<R> call) {
        int room = Math.max(1, adapters.size());
        try (PointerPointer<lorica_adapter> pointers = new PointerPointer<>(room);
                FloatPointer scales = new FloatPointer(room)) {
            return with(adapters, 0, pointers, scales, call);
        }
    }

    private static <R> R with(
            List<ScaledAdapter> adapters,
            int i,
            PointerPointer<lorica_adapter> pointers,
            FloatPointer scales,
            Call<R> call) {
        if (i == adapters.size()) {
            return call.apply(pointers, scales, i);
        }
        scales.put(i, (float) adapters.get(i).scale());
        return adapters.get(i).adapter().handle().shared(pointer -> {
            pointers.put(i, pointer);
            return with(adapters, i + 1, pointers, scales, call);
        });
    }
}
