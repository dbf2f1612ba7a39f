package dev.lorica.internal;

import dev.lorica.internal.c.lorica_adapter;
import java.util.Comparator;
import java.util.List;
import java.util.stream.IntStream;
import org.bytedeco.javacpp.DoublePointer;
import org.bytedeco.javacpp.PointerPointer;

/** Adapters and scales as the C ABI takes them. */
final class AdapterArray {
    /** A native call with n adapters. */
    interface Call<R> {
        R apply(PointerPointer<lorica_adapter> adapters, DoublePointer scales, int n);
    }

    private AdapterArray() {}

    /**
     * A call during which none of the adapters changes. They are locked in the order in which they were made, whatever their order
     * here: two calls that each waited for what the other holds would wait for ever.
     */
    static <R> R with(List<NativeAdapter> adapters, double[] scales, Call<R> call) {
        int room = Math.max(1, adapters.size());
        int[] order = IntStream.range(0, adapters.size())
                .boxed()
                .sorted(Comparator.comparingLong(i -> adapters.get(i).handle.number()))
                .mapToInt(Integer::intValue)
                .toArray();
        try (PointerPointer<lorica_adapter> pointers = Memory.pointers(room);
                DoublePointer factors = Memory.doubles(room)) {
            for (int i = 0; i < scales.length; i++) {
                factors.put(i, scales[i]);
            }
            return with(adapters, order, 0, pointers, factors, call);
        }
    }

    private static <R> R with(
            List<NativeAdapter> adapters,
            int[] order,
            int locked,
            PointerPointer<lorica_adapter> pointers,
            DoublePointer scales,
            Call<R> call) {
        if (locked == order.length) {
            return call.apply(pointers, scales, order.length);
        }
        return adapters.get(order[locked]).handle.shared(pointer -> {
            pointers.put(order[locked], pointer);
            return with(adapters, order, locked + 1, pointers, scales, call);
        });
    }
}
