package dev.lorica.train;

/**
 * Whether a run is to end. An interrupt of the thread that trains asks for that too: it is taken off the thread, where it would break
 * whatever is written to a file channel, and given back at the end.
 */
final class StopSignal {
    private volatile boolean requested;
    private boolean interrupted;

    /** From any thread. */
    void request() {
        requested = true;
    }

    /** Asked by the thread that trains. */
    boolean raised() {
        if (Thread.interrupted()) {
            interrupted = true;
            requested = true;
        }
        return requested;
    }

    /** The run is over; the next one is not asked to stop yet. */
    void reset() {
        requested = false;
        if (interrupted) {
            interrupted = false;
            Thread.currentThread().interrupt();
        }
    }
}
