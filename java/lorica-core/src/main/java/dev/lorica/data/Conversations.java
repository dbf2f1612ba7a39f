package dev.lorica.data;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** Reads messages as chat sets have them: {@code role} and {@code content}, or ShareGPT's {@code from} and {@code value}. */
final class Conversations {
    private static final ObjectMapper MAPPER = new ObjectMapper();

    /** What ShareGPT's sets and their relatives call who speaks. */
    private static final Map<String, String> ROLES = Map.ofEntries(
            Map.entry("human", "user"),
            Map.entry("user", "user"),
            Map.entry("gpt", "assistant"),
            Map.entry("assistant", "assistant"),
            Map.entry("chatgpt", "assistant"),
            Map.entry("bing", "assistant"),
            Map.entry("bard", "assistant"),
            Map.entry("bot", "assistant"),
            Map.entry("model", "assistant"),
            Map.entry("function_call", "assistant"),
            Map.entry("system", "system"),
            Map.entry("tool", "tool"),
            Map.entry("function", "tool"),
            Map.entry("observation", "tool"));

    private Conversations() {}

    static boolean isMessages(JsonNode node) {
        return node != null
                && node.isArray()
                && node.size() > 0
                && node.get(0).isObject()
                && (node.get(0).has("role") || node.get(0).has("from"));
    }

    /** The messages in a field, which may also be JSON written out as text, as CSV files have it. */
    static Conversation parse(Raw raw, String field, JsonNode given) {
        JsonNode node = parsed(raw, field, given);
        if (node == null || !node.isArray() || node.isEmpty()) {
            throw new DataException(raw.where() + ": field \"" + field + "\" is "
                    + (node == null ? "missing" : node.isArray() ? "an empty array" : JsonRecords.kind(node))
                    + "; a list of messages is meant, such as [{\"role\": \"user\", \"content\": …}, …]");
        }
        return new Conversation(messages(raw, field, node, true), tools(raw));
    }

    private static JsonNode parsed(Raw raw, String field, JsonNode given) {
        if (given == null || !given.isTextual()) {
            return given;
        }
        try {
            return MAPPER.readTree(given.asText());
        } catch (JsonProcessingException e) {
            throw new DataException(
                    raw.where() + ": field \"" + field + "\" is a text but not JSON: "
                            + e.getOriginalMessage().lines().findFirst().orElse(""),
                    e);
        }
    }

    /** What was said before, as pairs of a question and its answer; a record may lack it. All answers are learned. */
    static List<Message> history(Raw raw, String field) {
        JsonNode given = raw.fields().get(field);
        boolean none = given == null
                || given.isNull()
                || given.isTextual() && given.asText().isBlank();
        JsonNode pairs = none ? null : parsed(raw, field, given);
        List<Message> messages = new ArrayList<>();
        if (pairs != null && !pairs.isArray()) {
            throw new DataException(raw.where() + ": field \"" + field + "\" is " + JsonRecords.kind(pairs)
                    + "; what was said before is meant, as [[question, answer], …]");
        }
        for (int i = 0; pairs != null && i < pairs.size(); i++) {
            JsonNode pair = pairs.get(i);
            if (!pair.isArray()
                    || pair.size() != 2
                    || !pair.get(0).isTextual()
                    || !pair.get(1).isTextual()) {
                throw new DataException(
                        raw.where() + ", " + field + "[" + i + "] is no pair of a question and its answer");
            }
            messages.add(Message.user(pair.get(0).asText()));
            messages.add(Message.assistant(pair.get(1).asText()));
        }
        return messages;
    }

    /** TRL's form: a conversation in {@code prompt}, and what is learned of it in {@code completion}. */
    static Conversation parse(Raw raw, DataFields fields) {
        List<Message> all = messages(raw, fields.prompt(), raw.fields().get(fields.prompt()), false);
        JsonNode response = raw.fields().get(fields.response());
        if (isMessages(response)) {
            all.addAll(messages(raw, fields.response(), response, true));
        } else if (response != null && response.isTextual()) {
            all.add(Message.assistant(response.asText()));
        } else {
            throw new DataException(
                    raw.where() + ": field \"" + fields.response() + "\" holds neither messages nor a text");
        }
        return new Conversation(all, tools(raw));
    }

    private static Object tools(Raw raw) {
        JsonNode tools = raw.fields().get("tools");
        if (tools != null && tools.isTextual() && tools.asText().strip().startsWith("[")) {
            try {
                tools = MAPPER.readTree(tools.asText());
            } catch (JsonProcessingException e) {
                throw new DataException(raw.where() + ": field \"tools\" is a text but not JSON", e);
            }
        }
        return tools == null || !tools.isArray() || tools.isEmpty() ? null : plain(tools);
    }

    private static Object plain(JsonNode node) {
        return MAPPER.convertValue(node, Object.class);
    }

    private static List<Message> messages(Raw raw, String field, JsonNode nodes, boolean trained) {
        List<Message> messages = new ArrayList<>(nodes.size() + 1);
        for (int i = 0; i < nodes.size(); i++) {
            messages.add(message(raw.where() + ", " + field + "[" + i + "]", nodes.get(i), trained));
        }
        return messages;
    }

    private static Message message(String where, JsonNode node, boolean trained) {
        if (!node.isObject()) {
            throw new DataException(
                    where + " is " + JsonRecords.kind(node) + "; an object with role and content is meant");
        }
        boolean shareGpt = !node.has("role") && node.has("from");
        JsonNode role = node.get(shareGpt ? "from" : "role");
        if (role == null || !role.isTextual()) {
            throw new DataException(where + " does not say who speaks; found " + Dataset.quoted(Dataset.names(node))
                    + ", meant role and content, or from and value");
        }
        String contentField =
                shareGpt && node.has("value") || !node.has("content") && node.has("value") ? "value" : "content";
        Map<String, Object> more = new LinkedHashMap<>();
        node.fields().forEachRemaining(entry -> {
            switch (entry.getKey()) {
                case "role", "from", "content", "value", "weight", "train" -> {}
                default -> {
                    if (!entry.getValue().isNull()) {
                        more.put(entry.getKey(), plain(entry.getValue()));
                    }
                }
            }
        });
        String content = content(where, node, contentField, more.containsKey("tool_calls"));
        boolean counts =
                node.path("weight").asDouble(1) != 0 && node.path("train").asBoolean(true);
        return new Message(role(where, role.asText(), shareGpt), content, trained && counts, more);
    }

    private static String role(String where, String role, boolean shareGpt) {
        String known = ROLES.get(role.toLowerCase(Locale.ROOT));
        if (known != null && (shareGpt || !role.equals("function"))) {
            return known;
        }
        if (shareGpt) {
            throw new DataException(
                    where + " is from \"" + role + "\"; meant are human, gpt, system, tool and their like");
        }
        return role;
    }

    private static String content(String where, JsonNode node, String field, boolean mayLack) {
        JsonNode content = node.get(field);
        if (content == null || content.isNull()) {
            if (mayLack) {
                return "";
            }
            throw new DataException(where + " has no content; found " + Dataset.quoted(Dataset.names(node)));
        }
        if (content.isArray()) {
            StringBuilder text = new StringBuilder();
            for (JsonNode part : content) {
                if (!part.path("text").isTextual()) {
                    throw new DataException(where + " holds "
                            + part.path("type").asText("something") + " in its content; only text can be learned");
                }
                text.append(part.get("text").asText());
            }
            return text.toString();
        }
        if (!content.isValueNode()) {
            throw new DataException(where + ": content is " + JsonRecords.kind(content) + "; a text is meant");
        }
        return content.asText();
    }
}
