package dev.lorica.cli;

import java.util.HashSet;
import java.util.Set;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import java.util.logging.SimpleFormatter;

/** Shows what the libraries warn about as lines of standard error, the same line once. */
final class LogLines extends Handler {
    private static final Logger ROOT = Logger.getLogger("");

    private final Terminal terminal;
    private final Set<String> shown = new HashSet<>();

    private LogLines(Terminal terminal) {
        this.terminal = terminal;
        setLevel(Level.WARNING);
        setFormatter(new SimpleFormatter());
    }

    /** From now on to this terminal, and nowhere else. */
    static void to(Terminal terminal) {
        for (Handler before : ROOT.getHandlers()) {
            ROOT.removeHandler(before);
        }
        ROOT.addHandler(new LogLines(terminal));
    }

    @Override
    public void publish(LogRecord log) {
        if (!isLoggable(log)) {
            return;
        }
        boolean error = log.getLevel().intValue() > Level.WARNING.intValue();
        String line = (error ? "error: " : "warning: ") + getFormatter().formatMessage(log);
        synchronized (shown) {
            if (!shown.add(line) && !error) {
                return;
            }
        }
        terminal.err().println(line);
        if (error && log.getThrown() != null) {
            log.getThrown().printStackTrace(terminal.err());
        }
    }

    @Override
    public void flush() {
        terminal.err().flush();
    }

    @Override
    public void close() {}
}
