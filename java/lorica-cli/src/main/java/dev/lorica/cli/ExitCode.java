package dev.lorica.cli;

/** What the program returns to the shell. */
final class ExitCode {
    /** All done. */
    static final int OK = 0;
    /** It could not be done: a file is damaged, memory does not suffice, the disk is full. */
    static final int FAILED = 1;
    /** The command line makes no sense. */
    static final int USAGE = 2;
    /** Stopped by Ctrl-C; what there was is saved. 128 + SIGINT, as shells count. */
    static final int INTERRUPTED = 130;

    private ExitCode() {}
}
