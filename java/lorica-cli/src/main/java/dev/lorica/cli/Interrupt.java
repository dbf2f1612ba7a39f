package dev.lorica.cli;

import sun.misc.Signal;
import sun.misc.SignalHandler;

/** Ctrl-C while this is open: the first asks for an orderly end, the second ends the program at once. */
final class Interrupt implements AutoCloseable {
    private static final Signal SIGINT = new Signal("INT");

    private final SignalHandler before;
    private volatile boolean requested;

    Interrupt(Runnable orderlyEnd) {
        before = Signal.handle(SIGINT, signal -> {
            if (requested) {
                Runtime.getRuntime().halt(ExitCode.INTERRUPTED);
            }
            requested = true;
            orderlyEnd.run();
        });
    }

    @Override
    public void close() {
        Signal.handle(SIGINT, before);
    }
}
