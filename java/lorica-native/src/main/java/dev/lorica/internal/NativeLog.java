package dev.lorica.internal;

import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_log_callback;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.Pointer;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;
import org.slf4j.event.Level;

/** Hands the lines that the native library logs to SLF4J's logger {@code dev.lorica.engine}. */
final class NativeLog extends lorica_log_callback {
    /** Apart: without a provider SLF4J says so when it is first used, which is not before there is something to say. */
    private static final class Log {
        static final Logger LOG = LoggerFactory.getLogger("dev.lorica.engine");
    }

    /** Held here for as long as the library may call it. */
    private static final NativeLog INSTANCE = new NativeLog();

    private NativeLog() {}

    /** There for as long as the process: nothing frees it, and JavaCPP's limit for what is freed has nothing to count. */
    @Override
    @SuppressWarnings("unchecked")
    protected <P extends Pointer> P deallocator(Deallocator deallocator) {
        return (P) this;
    }

    static void start() {
        Lorica.lorica_log_set(INSTANCE, null);
    }

    @Override
    public void call(int level, BytePointer message, Pointer userData) {
        try {
            Log.LOG.atLevel(level(level)).log(Text.of(message));
        } catch (Throwable e) {
            return; // a logger that fails must not end what logs
        }
    }

    private static Level level(int level) {
        return switch (level) {
            case Lorica.LORICA_LOG_DEBUG -> Level.DEBUG;
            case Lorica.LORICA_LOG_INFO -> Level.INFO;
            default -> Level.WARN;
        };
    }
}
