package dev.lorica.cli;

import sun.misc.Signal;
import sun.misc.SignalHandler;

/** Ctrl-C while this is open: the first asks for an orderly end, the second ends the program at once. */
final class Interrupt implements AutoCloseable {
    private static final Signal SIGINT = new Signal("INT");

    private final SignalHandler before;
    private volatile boolean requested;

    Interrupt(Runnable orderlyEnd) {
        before = handle(signal -> {
            if (requested) {
                Runtime.getRuntime().halt(ExitCode.INTERRUPTED);
            }
            requested = true;
            orderlyEnd.run();
        });
    }

    @Override
    public void close() {
        if (before != null) {
            handle(before);
        }
    }

    /** {@code null} when the JVM was started with {@code -Xrs} and leaves signals to whoever embeds it. */
    private static SignalHandler handle(SignalHandler handler) {
        try {
            return Signal.handle(SIGINT, handler);
        } catch (IllegalArgumentException e) {
            return null;
        }
    }
}
