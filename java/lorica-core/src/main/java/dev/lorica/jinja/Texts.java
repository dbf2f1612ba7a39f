package dev.lorica.jinja;

import java.util.ArrayList;
import java.util.BitSet;
import java.util.Collections;
import java.util.List;
import java.util.Locale;

/** What Python does with texts, in time that grows with their length alone. */
final class Texts {
    /** Shorter parts are searched for as they are: what that may cost at worst is so much more than the text is long. */
    private static final int SHORT = 16;

    private Texts() {}

    /** What Python counts as white space in {@code str.strip}. */
    static boolean isSpace(int c) {
        return c >= 0x09 && c <= 0x0d
                || c >= 0x1c && c <= 0x20
                || c == 0x85
                || c == 0xa0
                || c == 0x1680
                || c >= 0x2000 && c <= 0x200a
                || c == 0x2028
                || c == 0x2029
                || c == 0x202f
                || c == 0x205f
                || c == 0x3000;
    }

    static String strip(Run run, String text, String characters, boolean left, boolean right) {
        run.walk((long) text.length() + (characters == null ? 0 : characters.length()));
        run.make(text.length());
        return strip(text, characters, left, right);
    }

    /** @param characters what is taken off; {@code null}: white space */
    static String strip(String text, String characters, boolean left, boolean right) {
        BitSet taken = null;
        if (characters != null) {
            taken = new BitSet();
            for (int i = 0; i < characters.length(); i++) {
                taken.set(characters.charAt(i));
            }
        }
        int from = 0;
        int to = text.length();
        while (left && from < to && isStripped(text.charAt(from), taken)) {
            from++;
        }
        while (right && to > from && isStripped(text.charAt(to - 1), taken)) {
            to--;
        }
        return text.substring(from, to);
    }

    private static boolean isStripped(char c, BitSet taken) {
        return taken == null ? isSpace(c) : taken.get(c);
    }

    static int compare(Run run, String a, String b) {
        int most = Math.min(a.length(), b.length());
        run.walk(most);
        int i = 0;
        while (i < most && a.charAt(i) == b.charAt(i)) {
            i++;
        }
        if (i == most) {
            return Integer.compare(a.length(), b.length());
        }
        // By code points: a surrogate comes behind all that is none.
        char x = a.charAt(i);
        char y = b.charAt(i);
        return Character.isSurrogate(x) == Character.isSurrogate(y)
                ? Character.compare(x, y)
                : Character.isSurrogate(x) ? 1 : -1;
    }

    /** Where {@code part} is in {@code text}, −1: nowhere. */
    static int indexOf(Run run, String text, String part, int from) {
        if (part.length() <= SHORT) {
            int at = text.indexOf(part, from);
            run.walk((at < 0 ? text.length() : at) - (long) from);
            return at;
        }
        return search(run, text, part, from, false);
    }

    static int lastIndexOf(Run run, String text, String part, int from) {
        if (part.length() <= SHORT) {
            int at = text.lastIndexOf(part, from);
            run.walk(from - (long) Math.max(0, at));
            return at;
        }
        int end = Math.min(text.length(), from + part.length());
        return search(run, text, part, text.length() - end, true);
    }

    /** Knuth, Morris and Pratt; {@code backwards}: both texts are read from their ends, {@code from} counts from there too. */
    private static int search(Run run, String text, String part, int from, boolean backwards) {
        int n = text.length();
        int m = part.length();
        if (m > n - from) {
            run.step();
            return -1;
        }
        run.walk((long) n - from + m);
        run.bytes(4L * m);
        int[] border = new int[m];
        for (int i = 1, k = 0; i < m; i++) {
            while (k > 0 && at(part, i, backwards) != at(part, k, backwards)) {
                k = border[k - 1];
            }
            k += at(part, i, backwards) == at(part, k, backwards) ? 1 : 0;
            border[i] = k;
        }
        for (int i = from, k = 0; i < n; i++) {
            while (k > 0 && at(text, i, backwards) != at(part, k, backwards)) {
                k = border[k - 1];
            }
            k += at(text, i, backwards) == at(part, k, backwards) ? 1 : 0;
            if (k == m) {
                return backwards ? n - 1 - i : i - m + 1;
            }
        }
        return -1;
    }

    private static char at(String text, int i, boolean backwards) {
        return text.charAt(backwards ? text.length() - 1 - i : i);
    }

    static long count(Run run, String text, String part) {
        long count = 0;
        for (int at = indexOf(run, text, part, 0); at >= 0; at = indexOf(run, text, part, at + part.length())) {
            count++;
        }
        return count;
    }

    static String nonEmpty(String separator) {
        if (separator == null || separator.isEmpty()) {
            throw new JinjaException("an empty separator");
        }
        return separator;
    }

    /** @param separator {@code null}: white space */
    static List<Object> split(Run run, String text, String separator, int most) {
        List<Object> parts = new ArrayList<>();
        if (separator == null) {
            run.walk(text.length());
            int at = 0;
            while (true) {
                while (at < text.length() && isSpace(text.charAt(at))) {
                    at++;
                }
                if (at == text.length()) {
                    return parts;
                }
                if (most >= 0 && parts.size() == most) {
                    add(run, parts, text.substring(at));
                    return parts;
                }
                int from = at;
                while (at < text.length() && !isSpace(text.charAt(at))) {
                    at++;
                }
                add(run, parts, text.substring(from, at));
            }
        }
        nonEmpty(separator);
        int from = 0;
        for (int at = indexOf(run, text, separator, 0);
                at >= 0 && (most < 0 || parts.size() < most);
                at = indexOf(run, text, separator, from)) {
            add(run, parts, text.substring(from, at));
            from = at + separator.length();
        }
        add(run, parts, text.substring(from));
        return parts;
    }

    /** @param separator {@code null}: white space */
    static List<Object> splitFromEnd(Run run, String text, String separator, int most) {
        if (most < 0) {
            return split(run, text, separator, most);
        }
        List<Object> parts = new ArrayList<>();
        int end = text.length();
        if (separator == null) {
            run.walk(text.length());
            while (true) {
                while (end > 0 && isSpace(text.charAt(end - 1))) {
                    end--;
                }
                if (end == 0) {
                    break;
                }
                int from = end;
                while (parts.size() < most && from > 0 && !isSpace(text.charAt(from - 1))) {
                    from--;
                }
                if (parts.size() == most) {
                    add(run, parts, text.substring(0, end));
                    break;
                }
                add(run, parts, text.substring(from, end));
                end = from;
            }
            Collections.reverse(parts);
            return parts;
        }
        nonEmpty(separator);
        for (int at = lastIndexOf(run, text, separator, end); at >= 0 && parts.size() < most; ) {
            add(run, parts, text.substring(at + separator.length(), end));
            end = at;
            at = at - separator.length() < 0 ? -1 : lastIndexOf(run, text, separator, at - separator.length());
        }
        add(run, parts, text.substring(0, end));
        Collections.reverse(parts);
        return parts;
    }

    private static void add(Run run, List<Object> parts, String part) {
        Run.checkElements(parts.size() + 1L);
        run.bytes(16);
        run.make(part.length());
        parts.add(part);
    }

    static List<Object> lines(Run run, String text, boolean keepEnds) {
        run.walk(text.length());
        List<Object> lines = new ArrayList<>();
        int from = 0;
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            if (c >= '\n' && c <= '\r' || c >= 0x1c && c <= 0x1e || c == 0x85 || c == 0x2028 || c == 0x2029) {
                int end = c == '\r' && i + 1 < text.length() && text.charAt(i + 1) == '\n' ? i + 2 : i + 1;
                add(run, lines, text.substring(from, keepEnds ? end : i));
                from = end;
                i = end - 1;
            }
        }
        if (from < text.length()) {
            add(run, lines, text.substring(from));
        }
        return lines;
    }

    static String replace(Run run, String text, String old, String with, int most) {
        if (old.isEmpty()) {
            return between(run, text, with, most);
        }
        StringBuilder replaced = new StringBuilder();
        int from = 0;
        int count = 0;
        for (int at = indexOf(run, text, old, 0);
                at >= 0 && (most < 0 || count < most);
                at = indexOf(run, text, old, from), count++) {
            run.append(replaced, text.substring(from, at));
            run.append(replaced, with);
            from = at + old.length();
        }
        run.append(replaced, text.substring(from));
        return replaced.toString();
    }

    /** An empty text is in front of every character, and at the end. */
    private static String between(Run run, String text, String with, int most) {
        run.walk(text.length());
        StringBuilder all = new StringBuilder();
        int count = 0;
        for (int i = 0; i < text.length(); ) {
            if (most < 0 || count++ < most) {
                run.append(all, with);
            }
            int c = text.codePointAt(i);
            run.append(all, Character.toString(c));
            i += Character.charCount(c);
        }
        if (most < 0 || count < most) {
            run.append(all, with);
        }
        return all.toString();
    }

    static String join(Run run, String separator, List<Object> elements) {
        StringBuilder joined = new StringBuilder();
        for (int i = 0; i < elements.size(); i++) {
            run.append(joined, i == 0 ? "" : separator);
            run.append(joined, Values.text(run, elements.get(i)));
        }
        return joined.toString();
    }

    static String upper(Run run, String text) {
        run.walk(text.length());
        return run.made(text.toUpperCase(Locale.ROOT));
    }

    static String lower(Run run, String text) {
        run.walk(text.length());
        return run.made(text.toLowerCase(Locale.ROOT));
    }

    static String capitalize(Run run, String text) {
        if (text.isEmpty()) {
            return text;
        }
        int end = text.offsetByCodePoints(0, 1);
        return upper(run, text.substring(0, end)).concat(lower(run, text.substring(end)));
    }

    /** Where a capital is put. */
    interface WordStart {
        /** Whether the character behind {@code c} begins a word. */
        boolean isBehind(int c);
    }

    static String title(Run run, String text, WordStart start) {
        run.walk(4L * text.length());
        run.make(text.length());
        StringBuilder title = new StringBuilder();
        boolean begins = true;
        for (int i = 0; i < text.length(); ) {
            int c = text.codePointAt(i);
            i += Character.charCount(c);
            title.appendCodePoint(begins ? Character.toTitleCase(c) : Character.toLowerCase(c));
            begins = start.isBehind(c);
        }
        return title.toString();
    }

    /** Its beginning, where it is longer. */
    static String brief(String text, int most) {
        return text.length() <= most ? text : text.substring(0, most) + "…";
    }

    /** As Python escapes what cannot be printed. */
    static String escaped(int c) {
        String digits = Integer.toHexString(c);
        int width = c < 0x100 ? 2 : c < 0x10000 ? 4 : 8;
        return (width == 2 ? "\\x" : width == 4 ? "\\u" : "\\U") + "0".repeat(width - digits.length()) + digits;
    }
}
