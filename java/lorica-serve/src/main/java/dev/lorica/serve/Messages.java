package dev.lorica.serve;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.data.Conversation;
import dev.lorica.data.Message;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** A conversation as OpenAI's clients send it. */
final class Messages {
    private Messages() {}

    static Conversation of(Fields fields) {
        JsonNode given = fields.take("messages");
        if (given == null) {
            throw fields.missing("messages");
        }
        if (!given.isArray() || given.isEmpty()) {
            throw fields.wrong("messages", given, "a list of messages, one at least");
        }
        List<Message> messages = new ArrayList<>();
        for (int i = 0; i < given.size(); i++) {
            if (!(given.get(i) instanceof ObjectNode object)) {
                throw fields.wrong("messages", given.get(i), "a list of objects with role and content");
            }
            messages.add(message(new Fields(object, "messages[" + i + "].")));
        }
        if (messages.get(messages.size() - 1).role().equals("assistant")) {
            throw ApiException.field("messages", "the last message is the assistant's; there is nothing to answer");
        }
        return new Conversation(messages, null);
    }

    private static Message message(Fields fields) {
        String role = fields.requiredText("role");
        String known =
                switch (role) {
                    case "system", "user", "assistant", "tool" -> role;
                    case "developer" -> "system";
                    default ->
                        throw ApiException.field(
                                "messages",
                                "there is no role " + role + "; there are system, developer, user, assistant, tool");
                };
        Map<String, Object> more = new LinkedHashMap<>();
        for (String name : List.of("name", "tool_calls", "tool_call_id")) {
            JsonNode value = fields.take(name);
            if (value != null) {
                more.put(name, Json.plain(value));
            }
        }
        String content = content(fields, known.equals("assistant"));
        fields.end();
        return new Message(known, content, true, more);
    }

    private static String content(Fields fields, boolean assistant) {
        JsonNode given = fields.take("content");
        if (given == null) {
            if (assistant) {
                return ""; // calls of tools alone
            }
            throw fields.missing("content");
        }
        if (given.isTextual()) {
            return given.asText();
        }
        StringBuilder text = new StringBuilder();
        for (JsonNode part : given) {
            if (!part.path("type").asText().equals("text") || !part.path("text").isTextual() || part.size() != 2) {
                throw fields.wrong(
                        "content", part, "a string, or parts of type text; images and sounds are not understood");
            }
            text.append(part.get("text").asText());
        }
        if (!given.isArray()) {
            throw fields.wrong("content", given, "a string, or a list of parts of type text");
        }
        return text.toString();
    }
}
