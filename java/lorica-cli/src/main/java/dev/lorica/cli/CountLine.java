package dev.lorica.cli;

import java.io.PrintStream;

/** How much of something is done, on standard error: a line that changes on a terminal, a line now and then elsewhere. */
final class CountLine {
    private static final String CLEAR = "\r\u001b[K";
    private static final long MIN_INTERVAL_NANOS = 100_000_000;
    private static final long SELDOM_NANOS = 10_000_000_000L;

    private final PrintStream err;
    private final boolean moving;
    private final String what;
    private final long begun = System.nanoTime();
    private long drawnAt = begun;
    private boolean drawn;

    CountLine(Terminal terminal, String what) {
        this.err = terminal.err();
        this.moving = terminal.errIsTerminal() && !"dumb".equals(System.getenv("TERM"));
        this.what = what;
    }

    void show(int done, int all) {
        long now = System.nanoTime();
        if (done < all && now - drawnAt < (moving ? MIN_INTERVAL_NANOS : SELDOM_NANOS)) {
            return;
        }
        drawnAt = now;
        double left = (now - begun) / 1e9 / Math.max(1, done) * (all - done);
        String line = what + ": " + Format.count(done) + " of " + Format.count(all)
                + (done < all ? ", ETA " + Format.duration(left) : "");
        if (moving) {
            err.print(CLEAR + line);
            err.flush();
            drawn = true;
        } else {
            err.println(line);
        }
    }

    /** Takes the changing line away. */
    void end() {
        if (drawn) {
            err.print(CLEAR);
            err.flush();
        }
    }
}
