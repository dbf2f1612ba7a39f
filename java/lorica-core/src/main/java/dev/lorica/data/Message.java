package dev.lorica.data;

import dev.lorica.internal.Arguments;
import java.util.Collection;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.Map;
import java.util.Set;

/**
 * One turn of a conversation.
 *
 * @param role    who speaks: {@code system}, {@code user}, {@code assistant}, {@code tool}
 * @param content what is said, {@code ""} if nothing is
 * @param trained whether the model learns to say it, if it is the assistant who speaks; a message with {@code "weight": 0} or
 *                {@code "train": false} is only there for those behind it
 * @param weight  how much the loss of its tokens counts where it is learned; 1 as a rule
 * @param more    what else a template may look at, such as {@code name} or {@code tool_calls}; {@code content} among it is
 *                what a template sees as that where it is no text: {@code null}, or the object that a tool answered
 */
public record Message(String role, String content, boolean trained, float weight, Map<String, Object> more) {
    /** As {@code content} in {@code more}: the message has no such field, not even an empty one. */
    static final Object ABSENT = new Object();

    static final String CONTENT = "content";

    /**
     * Copies what a template may look at.
     *
     * @throws dev.lorica.exceptions.InvalidArgumentException if a component is {@code null}
     */
    public Message {
        Arguments.given(role, "role");
        Arguments.given(content, "content");
        more = Collections.unmodifiableMap(new LinkedHashMap<>(Arguments.given(more, "more")));
        Arguments.check(weight > 0 && Float.isFinite(weight), "the weight of a message", weight, "more than 0");
    }

    /**
     * A turn of which each token that is learned counts alike.
     *
     * @param role    as {@link #role()}
     * @param content as {@link #content()}
     * @param trained as {@link #trained()}
     * @param more    as {@link #more()}
     */
    public Message(String role, String content, boolean trained, Map<String, Object> more) {
        this(role, content, trained, 1, more);
    }

    /**
     * {@return a turn, which is learned if the assistant's turns are}
     *
     * @param role    who speaks
     * @param content what is said
     */
    public static Message of(String role, String content) {
        Arguments.given(role, "role");
        Arguments.given(content, "content");
        return new Message(role, content, true, Map.of());
    }

    /**
     * {@return a system prompt}
     *
     * @param content what is said
     */
    public static Message system(String content) {
        Arguments.given(content, "content");
        return of("system", content);
    }

    /**
     * {@return what the user says}
     *
     * @param content what is said
     */
    public static Message user(String content) {
        Arguments.given(content, "content");
        return of("user", content);
    }

    /**
     * {@return what the assistant says, which is learned}
     *
     * @param content what is said
     */
    public static Message assistant(String content) {
        Arguments.given(content, "content");
        return of("assistant", content);
    }

    boolean isAssistant() {
        return role.equals("assistant");
    }

    /** What is in {@code more} besides its content. */
    Set<String> others() {
        Set<String> others = new LinkedHashSet<>(more.keySet());
        others.remove(CONTENT);
        return others;
    }

    Message withTrained(boolean trained) {
        return new Message(role, content, trained, weight, more);
    }

    /**
     * {@return the same with the loss of its tokens counting so much}
     *
     * @param weight more than 0
     */
    public Message withWeight(float weight) {
        return new Message(role, content, trained, weight, more);
    }

    /** Without these in {@code more}. */
    Message without(Collection<String> names) {
        Map<String, Object> left = new LinkedHashMap<>(more);
        left.keySet().removeAll(names);
        return new Message(role, content, trained, weight, left);
    }

    /** As a template sees it. */
    Map<String, Object> variables() {
        Map<String, Object> variables = new LinkedHashMap<>();
        variables.put("role", role);
        variables.put(CONTENT, content);
        variables.putAll(more);
        if (variables.get(CONTENT) == ABSENT) {
            variables.remove(CONTENT);
        }
        return variables;
    }
}
