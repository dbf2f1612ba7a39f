package dev.lorica.internal;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalStateException;

import java.lang.ref.WeakReference;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.bytedeco.javacpp.Pointer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(600)
class NativeHandleTest {
    private final List<String> freed = Collections.synchronizedList(new ArrayList<>());

    @Test
    void freesOnceHoweverOftenItIsClosed() {
        NativeHandle<Pointer> model = handle("model");

        model.close();
        model.close();

        assertThat(freed).containsExactly("model");
    }

    @Test
    void refusesUseAfterClose() {
        NativeHandle<Pointer> model = handle("model");
        model.close();

        assertThatIllegalStateException().isThrownBy(() -> model.shared(p -> p)).withMessage("model is closed");
        assertThatIllegalStateException()
                .isThrownBy(() -> model.exclusive(p -> p))
                .withMessage("model is closed");
    }

    @Test
    void aParentIsFreedAfterTheLastOfItsChildren() {
        NativeHandle<Pointer> model = handle("model");
        NativeHandle<Pointer> adapter = handle("adapter", model);
        NativeHandle<Pointer> session = handle("session", model, adapter);

        model.close();
        adapter.close();
        assertThat(freed).isEmpty();

        session.close();
        assertThat(freed).containsExactly("session", "adapter", "model");
    }

    @Test
    void aChildOfAClosedParentIsFreedAndRefused() {
        NativeHandle<Pointer> model = handle("model");
        NativeHandle<Pointer> adapter = handle("adapter", model);
        adapter.close();

        assertThatIllegalStateException()
                .isThrownBy(() -> handle("session", model, adapter))
                .withMessage("adapter is closed");

        assertThat(freed).containsExactly("adapter", "session");
        model.close();
        assertThat(freed).containsExactly("adapter", "session", "model");
    }

    @Test
    void closeDuringACallWaitsWithFreeingButNotWithReturning() throws Exception {
        NativeHandle<Pointer> model = handle("model");
        CountDownLatch inside = new CountDownLatch(1);
        CountDownLatch closed = new CountDownLatch(1);
        ExecutorService executor = Executors.newSingleThreadExecutor();
        try {
            Future<Boolean> freedInside = executor.submit(() -> model.shared(p -> {
                inside.countDown();
                await(closed);
                return freed.contains("model");
            }));
            await(inside);
            model.close();
            assertThat(freed).isEmpty();
            closed.countDown();

            assertThat(freedInside.get()).isFalse();
            assertThat(freed).containsExactly("model");
        } finally {
            executor.shutdown();
        }
    }

    @Test
    void closingFromWithinACallIsAllowed() {
        NativeHandle<Pointer> model = handle("model");

        model.exclusive(p -> {
            model.close();
            assertThat(freed).isEmpty();
            return null;
        });

        assertThat(freed).containsExactly("model");
    }

    @Test
    void sharedCallsOverlap() throws Exception {
        NativeHandle<Pointer> model = handle("model");
        CountDownLatch both = new CountDownLatch(2);

        onThreads(
                2,
                2,
                () -> model.shared(p -> {
                    both.countDown();
                    await(both); // ends only when both are inside
                    return null;
                }));
    }

    @Test
    void aSignalPassesAnExclusiveCallAndNothingElse() throws Exception {
        NativeHandle<Pointer> context = handle("context");
        CountDownLatch inside = new CountDownLatch(1);
        CountDownLatch signalled = new CountDownLatch(1);
        ExecutorService executor = Executors.newSingleThreadExecutor();
        try {
            Future<Object> call = executor.submit(() -> context.exclusive(p -> {
                inside.countDown();
                await(signalled);
                return null;
            }));
            await(inside);
            context.signal(p -> signalled.countDown());
            call.get();
        } finally {
            executor.shutdown();
        }
        context.close();
        context.signal(p -> {
            throw new AssertionError("it is freed");
        });
    }

    @Test
    void exclusiveCallsDoNot() throws Exception {
        NativeHandle<Pointer> model = handle("model");
        AtomicInteger inside = new AtomicInteger();
        AtomicInteger most = new AtomicInteger();

        onThreads(
                4,
                200,
                () -> model.exclusive(p -> {
                    most.accumulateAndGet(inside.incrementAndGet(), Math::max);
                    Thread.yield();
                    inside.decrementAndGet();
                    return null;
                }));

        assertThat(most).hasValue(1);
    }

    @Test
    void whatIsForgottenIsFreed() throws Exception {
        WeakReference<Object> forgotten = new WeakReference<>(handle("forgotten"));

        long end = System.nanoTime() + TimeUnit.MINUTES.toNanos(5);
        while (!freed.contains("forgotten") && System.nanoTime() < end) {
            System.gc();
            Thread.sleep(10);
        }

        assertThat(forgotten.get()).isNull();
        assertThat(freed).containsExactly("forgotten");
    }

    /** A handle whose native object is only pretended: how often and when it is freed is what matters here. */
    private NativeHandle<Pointer> handle(String name, NativeHandle<?>... parents) {
        List<String> log = freed;
        return new NativeHandle<>(name, new Pointer(), p -> log.add(name), parents);
    }

    private static void onThreads(int threads, int calls, Callable<?> call) throws Exception {
        ExecutorService executor = Executors.newFixedThreadPool(threads);
        try {
            for (Future<?> done : executor.invokeAll(Collections.nCopies(calls, call))) {
                done.get();
            }
        } finally {
            executor.shutdown();
        }
    }

    private static void await(CountDownLatch latch) {
        try {
            assertThat(latch.await(5, TimeUnit.MINUTES)).isTrue();
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }
}
