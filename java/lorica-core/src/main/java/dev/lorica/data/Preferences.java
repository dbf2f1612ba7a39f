package dev.lorica.data;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Set;

/**
 * Reads what preferences are learned from, in the forms that TRL takes: a prompt with {@code chosen} and {@code rejected}, all of
 * them texts or messages, the prompt also within both; a prompt with a {@code completion} and a {@code label}.
 */
final class Preferences {
    private static final Set<String> YES = Set.of("true", "1", "1.0", "yes");
    private static final Set<String> NO = Set.of("false", "0", "0.0", "no");

    private Preferences() {}

    /** The chosen answer with its prompt, which holds the rejected one. */
    static DataRecord pair(Raw raw, DataFields fields, String system) {
        JsonNode chosen = side(raw, fields.response());
        JsonNode rejected = side(raw, fields.rejected());
        JsonNode prompt = fields.prompt() == null ? null : raw.fields().get(fields.prompt());
        if (Conversations.isMessages(chosen) != Conversations.isMessages(rejected)) {
            throw new DataException(raw.where() + ": of \"" + fields.response() + "\" and \"" + fields.rejected()
                    + "\", one is a text and the other one messages; both must be the same");
        }
        if (Conversations.isMessages(chosen)) {
            return ofMessages(
                    raw,
                    fields,
                    system,
                    prompt,
                    Conversations.messages(raw, fields.response(), chosen, true),
                    Conversations.messages(raw, fields.rejected(), rejected, true));
        }
        String good = text(raw, fields.response(), chosen);
        String bad = text(raw, fields.rejected(), rejected);
        if (Conversations.isMessages(prompt)) {
            List<Message> before = Conversations.messages(raw, fields.prompt(), prompt, false);
            return conversation(raw, system, before, List.of(Message.assistant(good)), List.of(Message.assistant(bad)));
        }
        if (fields.prompt() == null) {
            int common = commonBeginning(good, bad);
            String asked = good.substring(0, common);
            return new DataRecord("", asked, "", good.substring(common), null, raw.line())
                    .over(new DataRecord("", asked, "", bad.substring(common), null, raw.line()));
        }
        String asked = text(raw, fields.prompt(), side(raw, fields.prompt()));
        JsonNode given = fields.input() == null ? null : raw.fields().get(fields.input());
        String input = given == null || given.isNull() ? "" : given.asText();
        return new DataRecord(system, asked, input, good, null, raw.line())
                .over(new DataRecord(system, asked, input, bad, null, raw.line()));
    }

    private static DataRecord ofMessages(
            Raw raw, DataFields fields, String system, JsonNode prompt, List<Message> chosen, List<Message> rejected) {
        List<Message> before = new ArrayList<>();
        if (Conversations.isMessages(prompt)) {
            before.addAll(Conversations.messages(raw, fields.prompt(), prompt, false));
        } else if (prompt != null && prompt.isTextual() && chosen.get(0).isAssistant()) {
            before.add(Message.user(prompt.asText()));
        } else {
            // Both are whole conversations, also where the question stands by itself once more.
            int common = commonBeginning(chosen, rejected);
            before.addAll(chosen.subList(0, common).stream()
                    .map(message -> message.withTrained(false))
                    .toList());
            return conversation(
                    raw,
                    system,
                    before,
                    chosen.subList(common, chosen.size()),
                    rejected.subList(common, rejected.size()));
        }
        return conversation(raw, system, before, chosen, rejected);
    }

    private static DataRecord conversation(
            Raw raw, String system, List<Message> before, List<Message> chosen, List<Message> rejected) {
        return conversation(raw, system, before, chosen).over(conversation(raw, system, before, rejected));
    }

    private static DataRecord conversation(Raw raw, String system, List<Message> before, List<Message> answer) {
        List<Message> all = new ArrayList<>(before);
        all.addAll(answer);
        if (all.isEmpty()) {
            throw new DataException(raw.where() + ": a side of the pair has no messages");
        }
        return new DataRecord(system, null, "", "", new Conversation(all, Conversations.tools(raw)), raw.line());
    }

    /** Messages that both have at the beginning; a turn of the assistant before the first that differs is part of the answers. */
    private static int commonBeginning(List<Message> a, List<Message> b) {
        int n = Math.min(a.size(), b.size());
        int i = 0;
        while (i < n && a.get(i).equals(b.get(i))) {
            i++;
        }
        return i > 0 && a.get(i - 1).isAssistant() ? i - 1 : i;
    }

    /** Characters that both have at the beginning, without a space before the first that differs. */
    private static int commonBeginning(String a, String b) {
        int n = Math.min(a.length(), b.length());
        int i = 0;
        while (i < n && a.charAt(i) == b.charAt(i)) {
            i++;
        }
        if (i > 0 && i < a.length() && Character.isLowSurrogate(a.charAt(i))) {
            i--;
        }
        return i > 0 && a.charAt(i - 1) == ' ' ? i - 1 : i;
    }

    /** Whether an answer is a good one: 1, or 0. */
    static float label(Raw raw, String field) {
        String value = side(raw, field).asText().strip().toLowerCase(Locale.ROOT);
        if (YES.contains(value)) {
            return 1;
        }
        if (NO.contains(value)) {
            return 0;
        }
        throw new DataException(raw.where() + ": field \"" + field + "\" is \""
                + (value.length() > 40 ? value.substring(0, 40) + "…" : value)
                + "\"; true or false is meant, whether the answer is a good one");
    }

    private static JsonNode side(Raw raw, String field) {
        JsonNode value = raw.fields().get(field);
        if (value == null || value.isNull()) {
            throw new DataException(raw.where() + ": field \"" + field + "\" is "
                    + (value == null ? "missing" : "null")
                    + "; found " + Dataset.quoted(Dataset.names(raw.fields())));
        }
        return value;
    }

    private static String text(Raw raw, String field, JsonNode value) {
        if (!value.isValueNode()) {
            throw new DataException(raw.where() + ": field \"" + field + "\" is " + JsonRecords.kind(value)
                    + "; a text or messages are meant");
        }
        return value.asText();
    }
}
