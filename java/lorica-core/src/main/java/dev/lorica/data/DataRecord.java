package dev.lorica.data;

import dev.lorica.internal.Arguments;
import java.util.ArrayList;
import java.util.List;

/**
 * One example as text, before any template: a question with its answer, a plain text, or a conversation.
 *
 * @param system       the system prompt, {@code ""}: none
 * @param prompt       what is asked, or {@code null} in plain texts, which have nothing but {@code response}, and conversations
 * @param input        what the prompt is to be applied to (Alpaca's {@code input}), {@code ""} when there is none
 * @param response     what the model is to say; {@code ""} in conversations
 * @param conversation the conversation, {@code null}: it is none
 * @param line         line of the file on which the record begins, 0 when it comes from no file
 * @param rejected     of a pair: the same with the answer that is worse than this one's; {@code null}: it is no pair
 * @param value        a number that is learned from: 1 where the answer is a good one and 0 where it is not; {@code null}: none
 * @param weight       how much the loss of its tokens counts, 1 as a rule; of 0 nothing is learned
 */
public record DataRecord(
        String system,
        String prompt,
        String input,
        String response,
        Conversation conversation,
        long line,
        DataRecord rejected,
        Float value,
        float weight) {
    /**
     * Checks that there are a system prompt, an input and a response, each of which may be {@code ""}.
     *
     * @throws dev.lorica.exceptions.InvalidArgumentException if one of them is {@code null}
     */
    public DataRecord {
        Arguments.check(weight >= 0 && Float.isFinite(weight), "the weight of a record", weight, "0 or more");
        Arguments.given(system, "system");
        Arguments.given(input, "input");
        Arguments.given(response, "response");
    }

    /**
     * A question, a plain text or a conversation: no pair, and without a number.
     *
     * @param system       as {@link #system()}
     * @param prompt       as {@link #prompt()}
     * @param input        as {@link #input()}
     * @param response     as {@link #response()}
     * @param conversation as {@link #conversation()}
     * @param line         as {@link #line()}
     */
    public DataRecord(
            String system, String prompt, String input, String response, Conversation conversation, long line) {
        this(system, prompt, input, response, conversation, line, null, null, 1);
    }

    /**
     * {@return a prompt with two answers, from no file}
     *
     * @param prompt   what is asked
     * @param chosen   the better answer
     * @param rejected the worse answer
     */
    public static DataRecord pair(String prompt, String chosen, String rejected) {
        Arguments.given(prompt, "prompt");
        Arguments.given(chosen, "chosen");
        Arguments.given(rejected, "rejected");
        return of(prompt, chosen).over(of(prompt, rejected));
    }

    /**
     * {@return this as the better one of a pair}
     *
     * @param rejected the same with a worse answer
     */
    public DataRecord over(DataRecord rejected) {
        Arguments.given(rejected, "rejected");
        return new DataRecord(system, prompt, input, response, conversation, line, rejected, value, weight);
    }

    /**
     * {@return the same with the loss of its tokens counting so much}
     *
     * @param weight 0 or more
     */
    public DataRecord withWeight(float weight) {
        return new DataRecord(system, prompt, input, response, conversation, line, rejected, value, weight);
    }

    /**
     * {@return the same with a number that is learned from}
     *
     * @param value the number, finite
     */
    public DataRecord withValue(float value) {
        return new DataRecord(system, prompt, input, response, conversation, line, rejected, value, weight);
    }

    /**
     * A question without a system prompt.
     *
     * @param prompt   as {@link #prompt()}
     * @param input    as {@link #input()}
     * @param response as {@link #response()}
     * @param line     as {@link #line()}
     */
    public DataRecord(String prompt, String input, String response, long line) {
        this("", prompt, input, response, null, line);
    }

    /**
     * {@return a question and its answer, from no file}
     *
     * @param prompt   what is asked
     * @param response what the model is to say
     */
    public static DataRecord of(String prompt, String response) {
        Arguments.given(response, "response");
        return new DataRecord(Arguments.given(prompt, "prompt"), "", response, 0);
    }

    /**
     * {@return a plain text, all of which is learned, from no file}
     *
     * @param text the text
     */
    public static DataRecord text(String text) {
        Arguments.given(text, "text");
        return new DataRecord(null, "", text, 0);
    }

    /**
     * {@return a conversation, from no file, of which all that the assistant says is learned}
     *
     * @param messages the turns, in their order
     */
    public static DataRecord conversation(Message... messages) {
        return conversation(Conversation.of(messages));
    }

    /**
     * {@return a conversation, from no file, with the tools that it names}
     *
     * @param conversation the conversation
     */
    public static DataRecord conversation(Conversation conversation) {
        return new DataRecord("", null, "", "", Arguments.given(conversation, "conversation"), 0);
    }

    /** {@return whether this is a plain text without a prompt} */
    public boolean isText() {
        return prompt == null && conversation == null;
    }

    /** {@return whether this is a conversation} */
    public boolean isConversation() {
        return conversation != null;
    }

    /** {@return what the model is to say in the end} */
    public String answer() {
        if (!isConversation()) {
            return response;
        }
        Message last = conversation.messages().get(conversation.messages().size() - 1);
        return last.isAssistant() ? last.content() : "";
    }

    /** Whether there is nothing in it to learn. */
    boolean isEmpty() {
        return isConversation() ? conversation.learnedLength() == 0 : response.isBlank();
    }

    /** As a conversation, which a question with its answer is too; a plain text is none. */
    Conversation asConversation() {
        if (isConversation()) {
            return conversation.withSystem(system);
        }
        String question = input.isEmpty() ? prompt : prompt + "\n\n" + input;
        return new Conversation(List.of(Message.user(question), Message.assistant(response)), null).withSystem(system);
    }

    /** As what comes after something that was said before, in a conversation even if nothing was. */
    DataRecord after(List<Message> before) {
        List<Message> all = new ArrayList<>(before);
        all.addAll(
                new DataRecord(prompt, input, response, line).asConversation().messages());
        return new DataRecord(system, null, "", "", new Conversation(all, null), line).withWeight(weight);
    }

    /** For messages: {@code train.jsonl, line 12}. */
    String where(String file) {
        String named = file.isEmpty() ? "" : file + ", ";
        return line > 0 ? named + "line " + line : named + "a record";
    }

    /** Characters, roughly, for how much of a set may be in memory. */
    long size() {
        long size = system.length() + input.length() + response.length() + (prompt == null ? 0 : prompt.length());
        if (isConversation()) {
            for (Message message : conversation.messages()) {
                size += message.content().length() + 64L;
            }
        }
        return size + (rejected == null ? 0 : rejected.size());
    }
}
