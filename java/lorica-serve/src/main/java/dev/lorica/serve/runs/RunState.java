package dev.lorica.serve.runs;

/** What a run is doing. */
public enum RunState {
    /** Waits until those before it have ended. */
    QUEUED,
    /** Its process is at work. */
    RUNNING,
    /** Is to end, and saves what it has. */
    STOPPING,
    /** Ended before its last step; can go on. */
    STOPPED,
    /** It has done what it was to do. */
    FINISHED,
    /** It ended otherwise; its last lines say why. */
    FAILED;

    boolean isLive() {
        return this == RUNNING || this == STOPPING;
    }
}
