package dev.lorica.data;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;

/**
 * One turn of a conversation.
 *
 * @param role    who speaks: {@code system}, {@code user}, {@code assistant}, {@code tool}
 * @param content what is said
 * @param trained whether the model learns to say it, if it is the assistant who speaks; a message with {@code "weight": 0} or
 *                {@code "train": false} is only there for those behind it
 * @param more    what else a template may look at, such as {@code name} or {@code tool_calls}
 */
public record Message(String role, String content, boolean trained, Map<String, Object> more) {
    public Message {
        Objects.requireNonNull(role, "role");
        Objects.requireNonNull(content, "content");
        more = Collections.unmodifiableMap(new LinkedHashMap<>(more));
    }

    public static Message of(String role, String content) {
        return new Message(role, content, true, Map.of());
    }

    public static Message system(String content) {
        return of("system", content);
    }

    public static Message user(String content) {
        return of("user", content);
    }

    public static Message assistant(String content) {
        return of("assistant", content);
    }

    boolean isAssistant() {
        return role.equals("assistant");
    }

    /** As a template sees it. */
    Map<String, Object> variables(String content) {
        Map<String, Object> variables = new LinkedHashMap<>();
        variables.put("role", role);
        variables.put("content", content);
        variables.putAll(more);
        return variables;
    }
}
