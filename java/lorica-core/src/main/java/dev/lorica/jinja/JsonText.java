package dev.lorica.jinja;

import java.util.Collection;
import java.util.List;
import java.util.Map;

/** What Python's {@code json.dumps} writes. */
final class JsonText {
    private final Run run;
    private final String indent;
    private final boolean ascii;
    private final boolean sorted;
    private final StringBuilder out = new StringBuilder();

    private JsonText(Run run, String indent, boolean ascii, boolean sorted) {
        this.run = run;
        this.indent = indent;
        this.ascii = ascii;
        this.sorted = sorted;
    }

    /** @param indent of each level; {@code null}: all in one line */
    static String of(Run run, Object value, String indent, boolean ascii, boolean sorted) {
        JsonText json = new JsonText(run, indent, ascii, sorted);
        json.write(value, 0);
        return json.out.toString();
    }

    private void write(Object value, int level) {
        run.enter(1);
        if (value == null) {
            run.append(out, "null");
        } else if (value instanceof Boolean) {
            run.append(out, value.toString());
        } else if (value instanceof Number number) {
            String text = Values.number(number);
            run.append(
                    out,
                    switch (text) {
                        case "nan" -> "NaN";
                        case "inf" -> "Infinity";
                        case "-inf" -> "-Infinity";
                        default -> text;
                    });
        } else if (value instanceof String text) {
            quote(text);
        } else if (value instanceof Collection<?> list) {
            List<Object> elements = Values.copy(run, list);
            bracket('[', ']', elements, element -> write(element, level + 1), level);
        } else if (value instanceof Map<?, ?> map) {
            List<Object> keys = Values.copy(run, map);
            if (sorted) {
                try {
                    keys.sort((a, b) -> Values.compare(run, a, b));
                } catch (IllegalArgumentException e) {
                    throw new JinjaException("tojson: these keys cannot be sorted");
                }
            }
            bracket(
                    '{',
                    '}',
                    keys,
                    key -> {
                        quote(key instanceof String text ? text : of(run, key, null, ascii, false));
                        run.append(out, ": ");
                        write(map.get(key), level + 1);
                    },
                    level);
        } else {
            throw value instanceof Undefined undefined
                    ? undefined.error()
                    : new JinjaException("tojson: " + Values.shown(run, value) + " cannot be written as JSON");
        }
        run.leave(1);
    }

    private interface Writer {
        void write(Object element);
    }

    private void bracket(char open, char close, List<Object> elements, Writer writer, int level) {
        run.append(out, open);
        for (int i = 0; i < elements.size(); i++) {
            run.append(out, i == 0 ? "" : indent == null ? ", " : ",");
            lineBreak(level + 1);
            writer.write(elements.get(i));
        }
        if (!elements.isEmpty()) {
            lineBreak(level);
        }
        run.append(out, close);
    }

    private void lineBreak(int level) {
        if (indent != null) {
            run.append(out, '\n');
            for (int i = 0; i < level; i++) {
                run.append(out, indent);
            }
        }
    }

    private void quote(String text) {
        run.walk(text.length());
        run.append(out, '"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            switch (c) {
                case '"' -> run.append(out, "\\\"");
                case '\\' -> run.append(out, "\\\\");
                case '\n' -> run.append(out, "\\n");
                case '\r' -> run.append(out, "\\r");
                case '\t' -> run.append(out, "\\t");
                case '\b' -> run.append(out, "\\b");
                case '\f' -> run.append(out, "\\f");
                default -> {
                    if (c < 0x20 || ascii && c > 0x7e && !JinjaTemplate.isMark(c)) {
                        out.append(String.format("\\u%04x", (int) c));
                    } else {
                        run.append(out, c);
                    }
                }
            }
        }
        run.append(out, '"');
    }
}
