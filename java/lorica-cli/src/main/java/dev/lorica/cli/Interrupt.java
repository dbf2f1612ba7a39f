package dev.lorica.cli;

import java.util.LinkedHashMap;
import java.util.Map;
import sun.misc.Signal;
import sun.misc.SignalHandler;

/**
 * Ctrl-C while this is open. Of a command that is to end: the first asks for an orderly end, as the SIGTERM of a job scheduler
 * does, the second ends the program at once; a SIGTERM behind it does not, because one Ctrl-C may come as both: from the terminal, and
 * from the program that started this one. Of something that stops and leaves the program going: every one asks for that.
 */
final class Interrupt implements AutoCloseable {
    private final Map<Signal, SignalHandler> before = new LinkedHashMap<>();
    private volatile boolean requested;

    Interrupt(Runnable orderlyEnd) {
        SignalHandler handler = signal -> {
            if (requested && signal.getName().equals("INT")) {
                Runtime.getRuntime().halt(ExitCode.INTERRUPTED);
            }
            requested = true;
            orderlyEnd.run();
        };
        handle(handler, "INT", "TERM");
    }

    private Interrupt() {}

    /** Ctrl-C stops something, however often it comes, and the program goes on. */
    static Interrupt stopping(Runnable stop) {
        Interrupt interrupt = new Interrupt();
        interrupt.handle(signal -> stop.run(), "INT");
        return interrupt;
    }

    private void handle(SignalHandler handler, String... names) {
        for (String name : names) {
            try {
                Signal signal = new Signal(name);
                before.put(signal, Signal.handle(signal, handler));
            } catch (IllegalArgumentException e) {
                // The JVM was started with -Xrs and leaves signals to whoever embeds it.
            }
        }
    }

    @Override
    public void close() {
        before.forEach(Signal::handle);
    }
}
