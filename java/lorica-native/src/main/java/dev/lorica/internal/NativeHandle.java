package dev.lorica.internal;

import java.lang.ref.Cleaner;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.Lock;
import java.util.concurrent.locks.ReadWriteLock;
import java.util.concurrent.locks.ReentrantReadWriteLock;
import java.util.function.Consumer;
import java.util.function.Function;
import org.bytedeco.javacpp.Pointer;

/**
 * Owns one native object, and makes it safe to close it at any time from any thread.
 *
 * <p>Locks of several handles are taken in one order everywhere, so that no two threads wait for each other: adapters by age (see
 * {@code AdapterArray}), then the session or the cache that is used with them. A model is shared and never locked exclusively.
 *
 * <p>The native object is counted: by its owner until {@link #close}, by each call while it runs, and by the objects made from
 * it (an adapter counts its model). It is freed when nobody counts it any more. So a model may be closed before its adapters,
 * and anything during a call of another thread, which then ends normally; whoever comes after {@code close} gets an
 * {@link IllegalStateException}. A handle that is forgotten is closed by a {@link Cleaner}.
 *
 * @param <P> the pointer class of the native object
 */
public final class NativeHandle<P extends Pointer> implements AutoCloseable {
    private static final Cleaner CLEANER = Cleaner.create();

    private static final AtomicLong MADE = new AtomicLong();

    private final long number = MADE.getAndIncrement();
    private final String name;
    private final P pointer;
    private final ReadWriteLock lock = new ReentrantReadWriteLock();
    private final Resource resource;
    private final Cleaner.Cleanable cleanable;

    /**
     * @param name    what it is, for messages: {@code "the model"}
     * @param pointer the native object
     * @param free    its {@code lorica_*_free}
     * @param parents what it was made from, which must outlive it; {@code null}s are skipped
     * @throws IllegalStateException if a parent is closed; the native object is freed then
     */
    public NativeHandle(String name, P pointer, Consumer<P> free, NativeHandle<?>... parents) {
        this.name = name;
        this.pointer = pointer;
        List<Resource> retained = new ArrayList<>();
        for (NativeHandle<?> parent : parents) {
            if (parent == null) {
                continue;
            }
            if (!parent.resource.retain()) {
                free.accept(pointer);
                retained.forEach(Resource::release);
                throw parent.closed();
            }
            retained.add(parent.resource);
        }
        resource = new Resource(() -> free.accept(pointer), retained);
        cleanable = CLEANER.register(this, resource::closeByOwner);
    }

    /** Handles are numbered in the order in which they are made. Whoever needs several of a kind locks them in this order. */
    long number() {
        return number;
    }

    /** Calls with the native object, side by side with other such calls. */
    public <R> R shared(Function<P, R> call) {
        return with(lock.readLock(), call);
    }

    /** Calls what may be called at any time, while other calls use the object or wait for it. Does nothing once it is closed. */
    public void signal(Consumer<P> call) {
        if (resource.retain()) {
            try {
                call.accept(pointer);
            } finally {
                resource.release();
            }
        }
    }

    /** Calls with the native object, while no other call uses it. */
    public <R> R exclusive(Function<P, R> call) {
        return with(lock.writeLock(), call);
    }

    private <R> R with(Lock mode, Function<P, R> call) {
        if (!resource.retain()) {
            throw closed();
        }
        try {
            mode.lock();
            try {
                return call.apply(pointer);
            } finally {
                mode.unlock();
            }
        } finally {
            resource.release();
        }
    }

    private IllegalStateException closed() {
        return new IllegalStateException(name + " is closed");
    }

    /** Gives the native object up. Does not wait for calls that still run; closing twice is closing once. */
    @Override
    public void close() {
        cleanable.clean();
    }

    /** What is counted. Must not refer to the handle, or that would never be unreachable. */
    private static final class Resource {
        private final Runnable free;
        private final List<Resource> parents;
        private int references = 1;
        private boolean open = true;

        Resource(Runnable free, List<Resource> parents) {
            this.free = free;
            this.parents = parents;
        }

        synchronized boolean retain() {
            if (open) {
                references++;
            }
            return open;
        }

        void release() {
            synchronized (this) {
                if (--references > 0) {
                    return;
                }
            }
            free.run();
            parents.forEach(Resource::release);
        }

        void closeByOwner() {
            synchronized (this) {
                open = false;
            }
            release();
        }
    }
}
