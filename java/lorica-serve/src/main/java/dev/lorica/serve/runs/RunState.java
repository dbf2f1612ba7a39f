package dev.lorica.serve.runs;

/** What a run is doing. */
public enum RunState {
    /** Waits until those before it have ended. */
    QUEUED,
    RUNNING,
    /** Is to end, and saves what it has. */
    STOPPING,
    /** Ended before its last step; can go on. */
    STOPPED,
    FINISHED,
    FAILED;

    boolean isLive() {
        return this == RUNNING || this == STOPPING;
    }
}
