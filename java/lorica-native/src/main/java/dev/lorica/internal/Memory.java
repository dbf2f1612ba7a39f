package dev.lorica.internal;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import org.bytedeco.javacpp.BoolPointer;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.DoublePointer;
import org.bytedeco.javacpp.IntPointer;
import org.bytedeco.javacpp.LongPointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.PointerPointer;

/**
 * Memory for arguments of native calls, in direct buffers: full of zeros, there as long as the pointer is reachable.
 *
 * <p>JavaCPP's own allocators hold the whole process to a limit that is derived from the Java heap, and count all resident memory
 * towards it, a mapped model included. That limit is for the other libraries of this JVM, and is left alone.
 */
final class Memory {
    private Memory() {}

    private static ByteBuffer buffer(long bytes) {
        return ByteBuffer.allocateDirect(Math.toIntExact(Math.max(1, bytes))).order(ByteOrder.nativeOrder());
    }

    /** For whatever fits into it. */
    static Pointer of(long bytes) {
        return new Pointer(buffer(bytes));
    }

    static BytePointer bytes(long count) {
        return new BytePointer(buffer(count));
    }

    static BytePointer of(byte[] values) {
        return bytes(values.length).put(values);
    }

    /** As UTF-8 that ends with a NUL. */
    static BytePointer of(String text) {
        byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
        return bytes(utf8.length + 1L).put(utf8);
    }

    static BoolPointer booleans(int count) {
        return new BoolPointer(of(count));
    }

    static IntPointer ints(int count) {
        return new IntPointer(buffer((long) Integer.BYTES * count).asIntBuffer());
    }

    static LongPointer longs(int count) {
        return new LongPointer(buffer((long) Long.BYTES * count).asLongBuffer());
    }

    static LongPointer of(long[] values) {
        return longs(values.length).put(values, 0, values.length);
    }

    static DoublePointer doubles(int count) {
        return new DoublePointer(buffer((long) Double.BYTES * count).asDoubleBuffer());
    }

    static <P extends Pointer> PointerPointer<P> pointers(int count) {
        return new PointerPointer<>(of((long) Long.BYTES * count));
    }
}
