package dev.lorica.data;

import dev.lorica.internal.Arguments;
import java.util.ArrayList;
import java.util.List;

/**
 * Messages one after another.
 *
 * @param messages at least one
 * @param tools    descriptions of the tools that the assistant may call, as the template wants them; {@code null}: none
 */
public record Conversation(List<Message> messages, Object tools) {
    /**
     * Copies the list of messages.
     *
     * @throws DataException if there are none
     */
    public Conversation {
        messages = Arguments.all(messages, "messages");
        if (messages.isEmpty()) {
            throw new DataException("a conversation needs at least one message");
        }
    }

    /**
     * {@return a conversation without tools}
     *
     * @param messages the turns, in their order
     */
    public static Conversation of(Message... messages) {
        return new Conversation(Arguments.all("messages", messages), null);
    }

    /** With one message instead of another. */
    Conversation with(int index, Message message) {
        List<Message> all = new ArrayList<>(messages);
        all.set(index, message);
        return new Conversation(all, tools);
    }

    /** The first {@code count} messages. */
    Conversation first(int count) {
        return new Conversation(messages.subList(0, count), tools);
    }

    /** With a system prompt in front, unless there is one. */
    Conversation withSystem(String system) {
        if (system == null || system.isEmpty() || messages.get(0).role().equals("system")) {
            return this;
        }
        List<Message> all = new ArrayList<>();
        all.add(Message.system(system));
        all.addAll(messages);
        return new Conversation(all, tools);
    }

    /** Messages up to and with the last that is learned; 0: there is none. */
    int learnedLength() {
        for (int i = messages.size() - 1; i >= 0; i--) {
            Message message = messages.get(i);
            if (message.isAssistant()
                    && message.trained()
                    && !(message.content().isBlank() && message.others().isEmpty())) {
                return i + 1;
            }
        }
        return 0;
    }
}
