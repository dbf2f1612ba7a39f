package dev.lorica.cli;

import java.util.LinkedHashMap;
import java.util.Map;
import sun.misc.Signal;
import sun.misc.SignalHandler;

/**
 * Ctrl-C, or the SIGTERM of a job scheduler, while this is open: the first asks for an orderly end, the second ends the program
 * at once.
 */
final class Interrupt implements AutoCloseable {
    private final Map<Signal, SignalHandler> before = new LinkedHashMap<>();
    private volatile boolean requested;

    Interrupt(Runnable orderlyEnd) {
        SignalHandler handler = signal -> {
            if (requested) {
                Runtime.getRuntime().halt(ExitCode.INTERRUPTED);
            }
            requested = true;
            orderlyEnd.run();
        };
        for (String name : new String[] {"INT", "TERM"}) {
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
