package dev.lorica.data;

import java.util.List;
import java.util.Map;

/**
 * Refuses texts with halves of surrogate pairs, which JSON can write ({@code "\\ud83d"}) and which are no characters: there are
 * no tokens for them, and a question mark in their place would be learned.
 */
final class Characters {
    private Characters() {}

    static void check(DataRecord record, String where) {
        check(record.system(), where);
        check(record.prompt(), where);
        check(record.input(), where);
        check(record.response(), where);
        if (record.rejected() != null) {
            check(record.rejected(), where);
        }
        if (record.isConversation()) {
            for (Message message : record.conversation().messages()) {
                check(message.role(), where);
                check(message.content(), where);
                check(message.more(), where);
            }
            check(record.conversation().tools(), where);
        }
    }

    private static void check(Object value, String where) {
        if (value instanceof String text) {
            check(text, where);
        } else if (value instanceof List<?> list) {
            list.forEach(element -> check(element, where));
        } else if (value instanceof Map<?, ?> map) {
            map.forEach((key, entry) -> {
                check(key, where);
                check(entry, where);
            });
        }
    }

    private static void check(String text, String where) {
        for (int i = 0; text != null && i < text.length(); i++) {
            char c = text.charAt(i);
            if (Character.isSurrogate(c)) {
                boolean pair = Character.isHighSurrogate(c)
                        && i + 1 < text.length()
                        && Character.isLowSurrogate(text.charAt(i + 1));
                if (!pair) {
                    throw new DataException(where + " has half of a surrogate pair (\\u" + Integer.toHexString(c)
                            + ") behind \"" + text.substring(before(text, i), i) + "\"; that is no character");
                }
                i++;
            }
        }
    }

    private static int before(String text, int end) {
        int begin = Math.max(0, end - 20);
        return begin > 0 && Character.isLowSurrogate(text.charAt(begin)) ? begin + 1 : begin;
    }
}
