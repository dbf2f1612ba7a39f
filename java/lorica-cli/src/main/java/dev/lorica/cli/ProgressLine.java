package dev.lorica.cli;

import dev.lorica.train.TrainingProgress;
import java.io.PrintStream;
import java.util.List;
import java.util.Map;

/**
 * Training as it goes, on standard error: on a terminal a bar that stays at the bottom, with a line of the log above it
 * now and then; elsewhere only those lines. Ctrl-C has its own thread and a line of its own, hence {@code
 * synchronized}.
 */
final class ProgressLine {
    private static final String CLEAR = "\r\u001b[K";
    private static final int LONGEST_BAR = 30;
    private static final int SHORTEST_BAR = 5;
    private static final long MIN_INTERVAL_NANOS = 50_000_000;

    private final PrintStream err;
    private final boolean terminal;
    private final int width;
    private TrainingProgress shown;
    private long drawnAt;

    ProgressLine(Terminal terminal) {
        this.err = terminal.err();
        this.terminal = terminal.errIsTerminal() && !"dumb".equals(System.getenv("TERM"));
        this.width = this.terminal ? Terminal.width() : 0;
    }

    /** Draws the bar; more often than the eye can follow it does nothing. */
    synchronized void step(TrainingProgress progress) {
        shown = progress;
        boolean last = progress.step() == progress.totalSteps();
        if (terminal && (last || System.nanoTime() - drawnAt >= MIN_INTERVAL_NANOS)) {
            draw();
        }
    }

    /** Writes a line that stays. */
    synchronized void log(TrainingProgress progress) {
        String text = text(progress);
        if (!terminal) {
            line(text + "  ETA " + Format.duration(progress.secondsRemaining()));
        } else {
            line(text.length() <= width ? text : text.replaceFirst("^step ", "").replaceFirst(" of peak\\)$", ")"));
        }
    }

    private static String text(TrainingProgress progress) {
        String share = progress.utilization() > 0 ? " (" + Format.percent(progress.utilization(), 1) + " of peak)" : "";
        int digits = Integer.toString(progress.totalSteps()).length();
        return String.format("step %" + digits + "d/%d", progress.step(), progress.totalSteps()) + "  epoch "
                + Format.fixed(progress.epoch(), 2) + numbers(progress) + share;
    }

    /** Writes a line above the bar. */
    synchronized void line(String text) {
        if (!terminal) {
            err.println(text);
            return;
        }
        err.print(CLEAR);
        err.println(text);
        if (shown != null) {
            draw();
        }
    }

    /** Takes the bar away. */
    synchronized void end() {
        if (terminal && shown != null) {
            err.print(CLEAR);
            err.flush();
        }
        shown = null;
    }

    private void draw() {
        err.print(CLEAR + bar(shown, width - 1));
        err.flush();
        drawnAt = System.nanoTime();
    }

    /** The bar in at most {@code width} columns; what does not fit is left out from the right. */
    static String bar(TrainingProgress p, int width) {
        String left = p.step() + "/" + p.totalSteps() + " ";
        double share = p.totalSteps() == 0 ? 0 : (double) p.step() / p.totalSteps();
        String right = String.format(" %3d%%", (int) (100 * share)) + numbers(p) + "  ETA "
                + Format.duration(p.secondsRemaining());
        int cells = Math.min(LONGEST_BAR, Math.max(SHORTEST_BAR, width - left.length() - right.length()));
        int done = (int) Math.floor(share * cells);
        String line = left + "━".repeat(done) + "╌".repeat(cells - done) + right;
        return line.length() <= width ? line : line.substring(0, Math.max(0, width));
    }

    /** Of what an objective logs, what says most: how far apart the answers are, and of how many the better one leads; how good they are, and how long; how often a teacher would say the same. */
    static String metrics(Map<String, Double> metrics) {
        Double margin = metrics.get("rewards/margins");
        Double share = metrics.get("rewards/accuracies");
        Double reward = metrics.get("reward");
        Double length = metrics.get("completions/mean_length");
        Double agreement = metrics.get("agreement");
        return (reward == null ? "" : "  reward " + Format.fixed(reward, 3))
                + (length == null ? "" : "  length " + Format.fixed(length, 1))
                + (margin == null ? "" : "  margin " + Format.fixed(margin, 4))
                + (share == null ? "" : "  accuracy " + Format.percent(share, 1))
                + (agreement == null ? "" : "  agreement " + Format.percent(agreement, 1))
                + ofClasses(metrics);
    }

    private static String ofClasses(Map<String, Double> metrics) {
        StringBuilder words = new StringBuilder();
        for (String name : List.of("accuracy", "f1", "mse")) {
            if (metrics.containsKey(name)) {
                words.append("  ").append(name).append(' ').append(Format.fixed(metrics.get(name), 4));
            }
        }
        return words.toString();
    }

    private static String numbers(TrainingProgress p) {
        return "  loss " + Format.fixed(p.loss(), 4)
                + "  lr " + Format.scientific(p.learningRate())
                + metrics(p.metrics())
                + "  grad " + Format.fixed(p.gradNorm(), 3)
                + "  " + Format.count(Math.round(p.tokensPerSecond())) + " tok/s";
    }
}
