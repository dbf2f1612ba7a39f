package dev.lorica.generate;

import java.util.List;

/**
 * Passes streamed text on, up to the first stop string. Text that may turn out to be the beginning of one is held back, so no
 * part of a stop string ever gets through, wherever the pieces were cut.
 */
final class StopFilter {
    private final List<String> stops;
    private final StringBuilder held = new StringBuilder();
    private boolean stopped;

    StopFilter(List<String> stops) {
        this.stops = stops;
    }

    /** Takes a piece and gives the text that is certain now, possibly none. */
    String push(String piece) {
        if (stopped) {
            return "";
        }
        held.append(piece);
        int end = -1;
        for (String stop : stops) {
            int at = held.indexOf(stop);
            if (at >= 0 && (end < 0 || at < end)) {
                end = at;
            }
        }
        if (end >= 0) {
            stopped = true;
            return held.substring(0, end);
        }
        return take(held.length() - longestBeginning());
    }

    /** The end of the stream: what was held back. */
    String finish() {
        return stopped ? "" : take(held.length());
    }

    /** Whether a stop string has come. */
    boolean stopped() {
        return stopped;
    }

    private String take(int length) {
        String text = held.substring(0, length);
        held.delete(0, length);
        return text;
    }

    /** Length of the longest end of the held text with which a stop string begins. */
    private int longestBeginning() {
        int longest = 0;
        for (String stop : stops) {
            int length = Math.min(stop.length() - 1, held.length());
            while (length > longest && !stop.startsWith(held.substring(held.length() - length))) {
                length--;
            }
            longest = Math.max(longest, length);
        }
        return longest;
    }
}
