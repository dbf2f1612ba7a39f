package dev.lorica.data;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.MissingNode;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** Reads messages as chat sets have them: {@code role} and {@code content}, or ShareGPT's {@code from} and {@code value}. */
final class Conversations {
    private static final ObjectMapper MAPPER = new ObjectMapper();

    private static final String CALLS = "tool_calls";

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
        JsonNode response = fields.response() == null ? null : raw.fields().get(fields.response());
        if (fields.response() == null) {
            return new Conversation(all, tools(raw));
        }
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

    static Object tools(Raw raw) {
        JsonNode tools = raw.fields().get("tools");
        if (tools != null && tools.isTextual() && tools.asText().strip().startsWith("[")) {
            try {
                tools = MAPPER.readTree(tools.asText());
            } catch (JsonProcessingException e) {
                throw new DataException(raw.where() + ": field \"tools\" is a text but not JSON", e);
            }
        }
        if (tools == null || !tools.isArray() || tools.isEmpty()) {
            return null;
        }
        List<Object> described = new ArrayList<>();
        for (JsonNode tool : tools) {
            // LLaMA-Factory's sets leave out what is around a function.
            boolean bare = tool.isObject() && tool.has("name") && !tool.has("function") && !tool.has("type");
            described.add(bare ? Map.of("type", "function", "function", plain(tool)) : plain(tool));
        }
        return described;
    }

    private static Object plain(JsonNode node) {
        return MAPPER.convertValue(node, Object.class);
    }

    static List<Message> messages(Raw raw, String field, JsonNode nodes, boolean trained) {
        List<Message> messages = new ArrayList<>(nodes.size() + 1);
        int calls = 0;
        for (int i = 0; i < nodes.size(); i++) {
            Message message = message(raw.where() + ", " + field + "[" + i + "]", nodes.get(i), trained, calls);
            boolean called = message.more().get(CALLS) instanceof List<?>
                    && !nodes.get(i).has(CALLS);
            calls += called ? ((List<?>) message.more().get(CALLS)).size() : 0;
            messages.add(message.role().equals("tool") ? answered(messages, message) : message);
        }
        return messages;
    }

    /**
     * What a tool answered, with the id of the call that it answers. Forms that have no ids say by their order which that is; the
     * template may want to know.
     */
    private static Message answered(List<Message> before, Message message) {
        int answers = 0;
        int at = before.size() - 1;
        while (at >= 0 && before.get(at).role().equals("tool")) {
            answers++;
            at--;
        }
        if (at < 0
                || message.more().containsKey("tool_call_id")
                || !(before.get(at).more().get(CALLS) instanceof List<?> calls)
                || answers >= calls.size()
                || !(calls.get(answers) instanceof Map<?, ?> call)
                || !call.containsKey("id")) {
            return message;
        }
        Map<String, Object> more = new LinkedHashMap<>(message.more());
        more.put("tool_call_id", call.get("id"));
        return new Message(message.role(), message.content(), message.trained(), message.weight(), more);
    }

    private static Message message(String where, JsonNode node, boolean trained, int callsBefore) {
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
        String speaker = role(where, role.asText(), shareGpt);
        float weight = weight(where, node);
        boolean learned = trained && weight > 0;
        weight = weight > 0 ? weight : 1;
        JsonNode content = node.get(contentField);
        if (role.asText().equals("function_call")) {
            // LLaMA-Factory: the text of the turn is the call.
            more.put(CALLS, calls(where, parsedCall(where, content), callsBefore));
            more.put(Message.CONTENT, null);
            return new Message(speaker, "", learned, weight, more);
        }
        if (more.get("function_call") != null && !more.containsKey(CALLS)) {
            // OpenAI's name for a single call, before there were several.
            more.remove("function_call");
            more.put(CALLS, calls(where, node.get("function_call"), callsBefore));
        }
        String text = content(where, node, contentField, speaker, more);
        return new Message(speaker, text, learned, weight, more);
    }

    private static JsonNode parsedCall(String where, JsonNode content) {
        JsonNode call = content;
        if (content != null && content.isTextual()) {
            try {
                call = MAPPER.readTree(content.asText());
            } catch (JsonProcessingException e) {
                throw new DataException(
                        where + " is from function_call but holds no call in JSON, such as"
                                + " {\"name\": …, \"arguments\": {…}}",
                        e);
            }
        }
        return call;
    }

    /** One call or several, each with a name and arguments, as calls of tools with ids. */
    private static List<Object> calls(String where, JsonNode given, int callsBefore) {
        List<Object> calls = new ArrayList<>();
        for (JsonNode call :
                given != null && given.isArray() ? given : List.of(given == null ? MissingNode.getInstance() : given)) {
            if (!call.path("name").isTextual()) {
                throw new DataException(where + ": a call of a function has no name");
            }
            JsonNode arguments = call.path("arguments");
            if (arguments.isTextual()) {
                arguments = parsedArguments(arguments);
            }
            Map<String, Object> function = new LinkedHashMap<>();
            function.put("name", call.get("name").asText());
            function.put("arguments", arguments.isMissingNode() || arguments.isNull() ? Map.of() : plain(arguments));
            Map<String, Object> tool = new LinkedHashMap<>();
            // Nine letters and digits, as Mistral's formats want them.
            tool.put("id", String.format(Locale.ROOT, "call%05d", (callsBefore + calls.size()) % 100_000));
            tool.put("type", "function");
            tool.put("function", function);
            calls.add(tool);
        }
        return calls;
    }

    private static JsonNode parsedArguments(JsonNode text) {
        try {
            JsonNode arguments = MAPPER.readTree(text.asText());
            return arguments != null && arguments.isObject() ? arguments : text;
        } catch (JsonProcessingException e) {
            return text;
        }
    }

    /** How much a message counts, 1 where nothing is said; 0: it is not learned. */
    private static float weight(String where, JsonNode node) {
        float weight = weight(where, node.path("weight"), 1);
        return node.path("train").asBoolean(true) ? weight : 0;
    }

    /** A number that is how much something counts, as a number, a text or a truth value. */
    static float weight(String where, JsonNode node, float unsaid) {
        if (node == null
                || node.isMissingNode()
                || node.isNull()
                || node.isTextual() && node.asText().isBlank()) {
            return unsaid;
        }
        float weight = node.isBoolean() ? (node.asBoolean() ? 1 : 0) : (float) node.asDouble(Double.NaN);
        if (!(weight >= 0) || Float.isInfinite(weight)) {
            throw new DataException(where + " has weight " + node.asText()
                    + "; a number is meant, 0 (not learned), 1 (learned as all else) or another that is not negative");
        }
        return weight;
    }

    private static String role(String where, String role, boolean shareGpt) {
        String known = ROLES.get(role.toLowerCase(Locale.ROOT));
        if (known != null) {
            return known;
        }
        if (shareGpt) {
            throw new DataException(
                    where + " is from \"" + role + "\"; meant are human, gpt, system, tool and their like");
        }
        return role;
    }

    /** The text of a message. What is no text goes into {@code more}, where the template finds it. */
    private static String content(String where, JsonNode node, String field, String role, Map<String, Object> more) {
        JsonNode content = node.get(field);
        if (content == null || content.isNull()) {
            if (more.isEmpty()) {
                throw new DataException(where + " has no content; found " + Dataset.quoted(Dataset.names(node)));
            }
            more.put(Message.CONTENT, content == null ? Message.ABSENT : null);
            return "";
        }
        if (role.equals("tool") && (content.isObject() || content.isArray() && !isParts(content))) {
            more.put(Message.CONTENT, plain(content));
            return content.toString();
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
        if (role.equals("tool") && !content.isTextual()) {
            more.put(Message.CONTENT, plain(content));
        }
        return content.asText();
    }

    private static boolean isParts(JsonNode content) {
        return content.path(0).path("text").isTextual();
    }
}
