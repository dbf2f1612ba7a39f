package dev.lorica.jinja;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;

/** What Python's {@code json.dumps} writes. */
final class JsonText {
    private final String indent;
    private final boolean ascii;
    private final boolean sorted;
    private final StringBuilder out = new StringBuilder();

    private JsonText(String indent, boolean ascii, boolean sorted) {
        this.indent = indent;
        this.ascii = ascii;
        this.sorted = sorted;
    }

    /** @param indent of each level; {@code null}: all in one line */
    static String of(Object value, String indent, boolean ascii, boolean sorted) {
        JsonText json = new JsonText(indent, ascii, sorted);
        json.write(value, 0);
        return json.out.toString();
    }

    private void write(Object value, int level) {
        Scope.checkLength(out.length());
        if (value == null) {
            out.append("null");
        } else if (value instanceof Boolean) {
            out.append(value);
        } else if (value instanceof Number number) {
            String text = Values.number(number);
            out.append(
                    switch (text) {
                        case "nan" -> "NaN";
                        case "inf" -> "Infinity";
                        case "-inf" -> "-Infinity";
                        default -> text;
                    });
        } else if (value instanceof String text) {
            quote(text);
        } else if (value instanceof Collection<?> list) {
            List<Object> elements = new ArrayList<>(list);
            bracket('[', ']', elements, element -> write(element, level + 1), level);
        } else if (value instanceof Map<?, ?> map) {
            List<Object> keys = new ArrayList<>(map.keySet());
            if (sorted) {
                keys.sort(Values::compare);
            }
            bracket(
                    '{',
                    '}',
                    keys,
                    key -> {
                        quote(key instanceof String text ? text : of(key, null, ascii, false));
                        out.append(": ");
                        write(map.get(key), level + 1);
                    },
                    level);
        } else {
            throw value instanceof Undefined undefined
                    ? undefined.error()
                    : new JinjaException("tojson: " + Values.repr(value) + " cannot be written as JSON");
        }
    }

    private interface Writer {
        void write(Object element);
    }

    private void bracket(char open, char close, List<Object> elements, Writer writer, int level) {
        out.append(open);
        for (int i = 0; i < elements.size(); i++) {
            out.append(i == 0 ? "" : indent == null ? ", " : ",");
            lineBreak(level + 1);
            writer.write(elements.get(i));
        }
        if (!elements.isEmpty()) {
            lineBreak(level);
        }
        out.append(close);
    }

    private void lineBreak(int level) {
        if (indent != null) {
            out.append('\n').append(indent.repeat(level));
        }
    }

    private void quote(String text) {
        out.append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            switch (c) {
                case '"' -> out.append("\\\"");
                case '\\' -> out.append("\\\\");
                case '\n' -> out.append("\\n");
                case '\r' -> out.append("\\r");
                case '\t' -> out.append("\\t");
                case '\b' -> out.append("\\b");
                case '\f' -> out.append("\\f");
                default -> {
                    if (c < 0x20 || ascii && c > 0x7e) {
                        out.append(String.format("\\u%04x", (int) c));
                    } else {
                        out.append(c);
                    }
                }
            }
        }
        out.append('"');
    }
}
