package dev.lorica.jinja;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;

/**
 * Cuts the source of a template into tokens. The rules of white space are Jinja2's with {@code trim_blocks} and
 * {@code lstrip_blocks}: the line break right behind a tag of a block or a comment is dropped, and so are the blanks between
 * the beginning of a line and such a tag; {@code -} inside a delimiter drops all white space on its side, {@code +} keeps it.
 */
final class Lexer {
    enum Kind {
        TEXT,
        OUTPUT_BEGIN,
        OUTPUT_END,
        BLOCK_BEGIN,
        BLOCK_END,
        NAME,
        STRING,
        INTEGER,
        FLOAT,
        OPERATOR,
        END
    }

    record Token(Kind kind, String text, int line) {
        boolean is(Kind kind, String text) {
            return this.kind == kind && this.text.equals(text);
        }
    }

    private static final String[] OPERATORS = {
        "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", "|", ".", ",", ":", "(", ")",
        "[", "]", "{", "}"
    };

    private final String source;
    private final List<Token> tokens = new ArrayList<>();
    private int at;
    private int line = 1;

    /** Whether what comes next stands at the beginning of a line. */
    private boolean lineBegins = true;

    Lexer(String source) {
        String text = source.replace("\r\n", "\n").replace('\r', '\n');
        this.source = text.endsWith("\n") ? text.substring(0, text.length() - 1) : text;
    }

    List<Token> tokens() {
        while (at < source.length()) {
            int tag = nextTag(at);
            if (tag < 0) {
                text(source.substring(at));
                at = source.length();
                break;
            }
            char kind = source.charAt(tag + 1);
            char sign = tag + 2 < source.length() ? source.charAt(tag + 2) : ' ';
            String before = source.substring(at, tag);
            boolean strip = sign == '-';
            text(
                    strip
                            ? Texts.strip(before, null, false, true)
                            : sign == '+' || kind == '{' ? before : withoutIndent(before));
            countLines(before);
            at = tag + (sign == '-' || sign == '+' ? 3 : 2);
            switch (kind) {
                case '#' -> comment();
                case '%' -> {
                    if (!raw()) {
                        add(Kind.BLOCK_BEGIN, "{%");
                        inside("%}", Kind.BLOCK_END);
                    }
                }
                default -> {
                    add(Kind.OUTPUT_BEGIN, "{{");
                    inside("}}", Kind.OUTPUT_END);
                }
            }
        }
        add(Kind.END, "the end of the template");
        return tokens;
    }

    private int nextTag(int from) {
        for (int i = source.indexOf('{', from); i >= 0 && i + 1 < source.length(); i = source.indexOf('{', i + 1)) {
            char next = source.charAt(i + 1);
            if (next == '{' || next == '%' || next == '#') {
                return i;
            }
        }
        return -1;
    }

    private String withoutIndent(String before) {
        int lineStart = before.lastIndexOf('\n') + 1;
        boolean begins = lineStart > 0 || lineBegins;
        return begins
                        && Texts.strip(before.substring(lineStart), null, true, true)
                                .isEmpty()
                ? before.substring(0, lineStart)
                : before;
    }

    private void text(String text) {
        if (!text.isEmpty()) {
            add(Kind.TEXT, text);
        }
    }

    private void comment() {
        int end = source.indexOf("#}", at);
        if (end < 0) {
            throw new JinjaException("a comment does not end").at(line);
        }
        countLines(source.substring(at, end));
        char sign = end > at ? source.charAt(end - 1) : ' ';
        at = end + 2;
        behindTag(sign, true);
    }

    /** Takes a raw block whole, when that is what begins here. */
    private boolean raw() {
        int after = keyword(at, "raw");
        if (after < 0) {
            return false;
        }
        int beginEnd = source.indexOf("%}", after);
        if (beginEnd < 0) {
            throw new JinjaException("a raw block does not begin with {% raw %}").at(line);
        }
        at = beginEnd + 2;
        behindTag(source.charAt(beginEnd - 1), true);
        for (int tag = source.indexOf("{%", at); tag >= 0; tag = source.indexOf("{%", tag + 2)) {
            char sign = tag + 2 < source.length() ? source.charAt(tag + 2) : ' ';
            int name = keyword(tag + (sign == '-' || sign == '+' ? 3 : 2), "endraw");
            int end = name < 0 ? -1 : source.indexOf("%}", name);
            if (end >= 0) {
                String content = source.substring(at, tag);
                text(
                        sign == '-'
                                ? Texts.strip(content, null, false, true)
                                : sign == '+' ? content : withoutIndent(content));
                countLines(content);
                at = end + 2;
                behindTag(source.charAt(end - 1), true);
                return true;
            }
        }
        throw new JinjaException("a raw block does not end with {% endraw %}").at(line);
    }

    /** Where {@code word} ends, if it is the next thing from {@code from} on; otherwise −1. */
    private int keyword(int from, String word) {
        int i = from;
        while (i < source.length() && Texts.isSpace(source.charAt(i))) {
            i++;
        }
        int end = i + word.length();
        boolean whole = end >= source.length() || !Character.isJavaIdentifierPart(source.charAt(end));
        return source.startsWith(word, i) && whole ? end : -1;
    }

    /** White space behind a tag that ended just before {@code at}. */
    private void behindTag(char sign, boolean dropsLineBreak) {
        int from = at;
        if (sign == '-') {
            while (at < source.length() && Texts.isSpace(source.charAt(at))) {
                at++;
            }
        } else if (dropsLineBreak && sign != '+' && at < source.length() && source.charAt(at) == '\n') {
            at++;
        }
        countLines(source.substring(from, at));
        lineBegins = at > from && source.charAt(at - 1) == '\n';
    }

    /** The tokens of an expression or statement up to its end. A bracket that is open hides the end. */
    private void inside(String end, Kind endKind) {
        Deque<String> open = new ArrayDeque<>();
        while (true) {
            skipBlanks();
            if (at >= source.length()) {
                throw new JinjaException("\"" + end + "\" is missing").at(line);
            }
            char c = source.charAt(at);
            if (open.isEmpty()) {
                boolean signed = (c == '-' || c == '+' && endKind == Kind.BLOCK_END) && source.startsWith(end, at + 1);
                if (signed || source.startsWith(end, at)) {
                    at += signed ? 3 : 2;
                    add(endKind, end);
                    behindTag(signed ? c : ' ', endKind == Kind.BLOCK_END);
                    return;
                }
            }
            if (c == '"' || c == '\'') {
                string(c);
            } else if (Character.isDigit(c)) {
                number();
            } else if (Character.isJavaIdentifierStart(c)) {
                int from = at;
                while (at < source.length() && Character.isJavaIdentifierPart(source.charAt(at))) {
                    at++;
                }
                add(Kind.NAME, source.substring(from, at));
            } else {
                operator(open);
            }
        }
    }

    private void skipBlanks() {
        while (at < source.length() && Texts.isSpace(source.charAt(at))) {
            line += source.charAt(at) == '\n' ? 1 : 0;
            at++;
        }
    }

    private void operator(Deque<String> open) {
        for (String operator : OPERATORS) {
            if (source.startsWith(operator, at)) {
                switch (operator) {
                    case "(", "[", "{" -> open.push(operator);
                    case ")", "]", "}" -> {
                        if (open.isEmpty()) {
                            throw new JinjaException("unexpected \"" + operator + "\"").at(line);
                        }
                        open.pop();
                    }
                    default -> {}
                }
                at += operator.length();
                add(Kind.OPERATOR, operator);
                return;
            }
        }
        throw new JinjaException("unexpected \"" + source.charAt(at) + "\"").at(line);
    }

    private void number() {
        int from = at;
        while (at < source.length() && (Character.isDigit(source.charAt(at)) || source.charAt(at) == '_')) {
            at++;
        }
        boolean real = at + 1 < source.length() && source.charAt(at) == '.' && Character.isDigit(source.charAt(at + 1));
        if (real) {
            at++;
            while (at < source.length() && Character.isDigit(source.charAt(at))) {
                at++;
            }
        }
        if (at < source.length() && (source.charAt(at) == 'e' || source.charAt(at) == 'E')) {
            int digits = at + 1;
            if (digits < source.length() && (source.charAt(digits) == '-' || source.charAt(digits) == '+')) {
                digits++;
            }
            if (digits < source.length() && Character.isDigit(source.charAt(digits))) {
                real = true;
                at = digits;
                while (at < source.length() && Character.isDigit(source.charAt(at))) {
                    at++;
                }
            }
        }
        add(real ? Kind.FLOAT : Kind.INTEGER, source.substring(from, at).replace("_", ""));
    }

    private void string(char quote) {
        StringBuilder text = new StringBuilder();
        int begin = line;
        for (at++; at < source.length() && source.charAt(at) != quote; at++) {
            char c = source.charAt(at);
            line += c == '\n' ? 1 : 0;
            if (c == '\\' && at + 1 < source.length()) {
                at++;
                escape(source.charAt(at), text);
            } else {
                text.append(c);
            }
        }
        if (at >= source.length()) {
            throw new JinjaException("a text that begins with " + quote + " does not end").at(begin);
        }
        at++;
        tokens.add(new Token(Kind.STRING, text.toString(), begin));
    }

    /** Python's escapes; a backslash before anything else stands for itself. */
    private void escape(char c, StringBuilder text) {
        switch (c) {
            case 'n' -> text.append('\n');
            case 't' -> text.append('\t');
            case 'r' -> text.append('\r');
            case 'b' -> text.append('\b');
            case 'f' -> text.append('\f');
            case 'v' -> text.append('\u000b');
            case 'a' -> text.append('\u0007');
            case '0' -> text.append('\0');
            case '\\', '\'', '"' -> text.append(c);
            case '\n' -> line++;
            case 'x' -> text.appendCodePoint(hexadecimal(2));
            case 'u' -> text.appendCodePoint(hexadecimal(4));
            case 'U' -> text.appendCodePoint(hexadecimal(8));
            default -> text.append('\\').append(c);
        }
    }

    private int hexadecimal(int digits) {
        try {
            int value = Integer.parseInt(source.substring(at + 1, at + 1 + digits), 16);
            if (!Character.isValidCodePoint(value)) {
                throw new NumberFormatException();
            }
            at += digits;
            return value;
        } catch (NumberFormatException | StringIndexOutOfBoundsException e) {
            throw new JinjaException("a \\" + source.charAt(at) + " without " + digits + " hexadecimal digits")
                    .at(line);
        }
    }

    private void add(Kind kind, String text) {
        tokens.add(new Token(kind, text, line));
    }

    private void countLines(String text) {
        for (int i = text.indexOf('\n'); i >= 0; i = text.indexOf('\n', i + 1)) {
            line++;
        }
    }
}
