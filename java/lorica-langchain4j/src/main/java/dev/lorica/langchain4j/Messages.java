package dev.lorica.langchain4j;

import dev.langchain4j.data.message.AiMessage;
import dev.langchain4j.data.message.ChatMessage;
import dev.langchain4j.data.message.Content;
import dev.langchain4j.data.message.SystemMessage;
import dev.langchain4j.data.message.TextContent;
import dev.langchain4j.data.message.UserMessage;
import dev.langchain4j.exception.InvalidRequestException;
import dev.langchain4j.exception.UnsupportedFeatureException;
import dev.lorica.data.Conversation;
import dev.lorica.data.Message;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** A conversation as LangChain4j has it. */
final class Messages {
    private Messages() {}

    static Conversation of(List<ChatMessage> messages) {
        List<Message> all = new ArrayList<>();
        for (ChatMessage message : messages) {
            all.add(of(message));
        }
        if (all.get(all.size() - 1).role().equals("assistant")) {
            throw new InvalidRequestException("the last message is the assistant's; there is nothing to answer");
        }
        return new Conversation(all, null);
    }

    private static Message of(ChatMessage message) {
        if (message instanceof SystemMessage system) {
            return Message.system(system.text());
        }
        if (message instanceof UserMessage user) {
            Map<String, Object> more = user.name() == null ? Map.of() : Map.of("name", user.name());
            return new Message("user", text(user.contents()), true, more);
        }
        if (message instanceof AiMessage answer && !answer.hasToolExecutionRequests()) {
            return Message.assistant(answer.text() == null ? "" : answer.text());
        }
        throw new UnsupportedFeatureException(
                "calls of tools, their results and messages of other kinds are not supported; a conversation has messages of "
                        + "the system, the user and the assistant, and this is one of type " + message.type());
    }

    private static String text(List<Content> contents) {
        StringBuilder text = new StringBuilder();
        for (Content content : contents) {
            if (!(content instanceof TextContent words)) {
                throw new UnsupportedFeatureException("content of type "
                        + content.type().name().toLowerCase(Locale.ROOT)
                        + " is not supported: models read text");
            }
            text.append(text.isEmpty() ? "" : "\n").append(words.text());
        }
        return text.toString();
    }
}
