package dev.lorica.cli;

import java.util.ArrayList;
import java.util.List;
import org.jline.utils.WCWidth;

/** Two texts in two columns; one below the other where there is no room for that. */
final class SideBySide {
    /** A column narrower than this is not read with pleasure. */
    private static final int NARROWEST = 24;

    private static final String BETWEEN = " │ ";

    private SideBySide() {}

    /** The lines, the titles on top. */
    static List<String> lines(String leftTitle, String left, String rightTitle, String right, int width) {
        int column = (width - BETWEEN.length()) / 2;
        List<String> lines = new ArrayList<>();
        if (column < NARROWEST) {
            lines.add(leftTitle + ":");
            lines.addAll(wrap(left, width));
            lines.add("");
            lines.add(rightTitle + ":");
            lines.addAll(wrap(right, width));
            return lines;
        }
        lines.add(padded(leftTitle, column) + BETWEEN + rightTitle);
        lines.add("─".repeat(column) + "─┼─" + "─".repeat(column));
        List<String> lefts = wrap(left, column);
        List<String> rights = wrap(right, column);
        for (int i = 0; i < Math.max(lefts.size(), rights.size()); i++) {
            lines.add((padded(i < lefts.size() ? lefts.get(i) : "", column)
                            + BETWEEN
                            + (i < rights.size() ? rights.get(i) : ""))
                    .stripTrailing());
        }
        return lines;
    }

    /** {@code text} in lines of at most {@code columns}, broken between words where that is possible. */
    static List<String> wrap(String text, int columns) {
        List<String> lines = new ArrayList<>();
        for (String paragraph : text.strip().replace("\t", "    ").split("\\R", -1)) {
            String rest = paragraph;
            while (width(rest) > columns) {
                int most = fitting(rest, columns);
                int space = rest.lastIndexOf(' ', most);
                int to = space > 0 ? space : most;
                lines.add(rest.substring(0, to).stripTrailing());
                rest = rest.substring(to).stripLeading();
            }
            lines.add(rest);
        }
        return lines;
    }

    /** How many characters of {@code text} fit, at least one. */
    private static int fitting(String text, int columns) {
        int used = 0;
        int at = 0;
        while (at < text.length()) {
            int c = text.codePointAt(at);
            used += Math.max(0, WCWidth.wcwidth(c));
            if (used > columns && at > 0) {
                break;
            }
            at += Character.charCount(c);
        }
        return at;
    }

    private static String padded(String text, int columns) {
        return text + " ".repeat(Math.max(0, columns - width(text)));
    }

    /** Columns that a text takes: of most Chinese characters two, of accents that join what is before them none. */
    private static int width(String text) {
        return text.codePoints().map(c -> Math.max(0, WCWidth.wcwidth(c))).sum();
    }
}
