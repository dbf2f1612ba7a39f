package dev.lorica.cli;

import dev.lorica.Tokenizer;
import dev.lorica.data.Conversation;
import dev.lorica.data.DataRecord;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.Message;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.TextTemplate;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;

/**
 * What of a conversation goes to the model with the next question: all of it, as long as its context holds that and an answer; then
 * the oldest turns go. With a template for a single question, nothing but that.
 */
final class ChatHistory {
    private final boolean oneByOne;
    private final String system;
    private final Object tools;
    private final ExampleEncoder encoder;
    private final int context;
    private final int most;
    private final Consumer<String> note;
    private final List<Message> turns = new ArrayList<>();
    private boolean forgets;

    /**
     * @param tools   that the assistant may call, {@code null}: none
     * @param context tokens that the model's context has
     * @param answer  the most tokens of an answer; at least a quarter of the context is left for the conversation
     * @param note    hears, once each, of what does not go to the model
     */
    ChatHistory(
            PromptTemplate template,
            String system,
            Object tools,
            Tokenizer tokenizer,
            int context,
            int answer,
            Consumer<String> note) {
        this.system = system;
        this.tools = tools;
        this.note = note;
        this.context = context;
        oneByOne = template instanceof TextTemplate;
        encoder = new ExampleEncoder(tokenizer, template, false);
        most = Math.max(context / 4, context - answer);
        if (oneByOne) {
            note.accept("note: template \"" + template.name() + "\" is for single questions; each is asked by itself,"
                    + " without what was said before (--chat-template chooses one for conversations)");
        }
    }

    /** The conversation that this question is asked with; {@code null} when it alone is longer than the model's context. */
    Conversation ask(String question) {
        int alone = tokens(List.of(Message.user(question)));
        if (alone >= context) {
            note.accept("note: the question has " + Format.count(alone, "token") + "; the model's context has room for "
                    + Format.count(context) + ". Ask a shorter one");
            return null;
        }
        if (oneByOne) {
            turns.clear();
        }
        turns.add(Message.user(question));
        while (turns.size() > 1 && tokens(turns) > most) {
            if (!forgets) {
                forgets = true;
                note.accept(
                        "note: the conversation is longer than the model's context holds beside an answer; from here"
                                + " on the oldest turns are left out");
            }
            turns.subList(0, Math.min(2, turns.size() - 1)).clear();
        }
        return conversation(turns);
    }

    void answered(String answer) {
        turns.add(Message.assistant(answer));
    }

    private Conversation conversation(List<Message> turns) {
        List<Message> messages = new ArrayList<>(turns);
        if (system != null) {
            messages.add(0, Message.system(system));
        }
        return new Conversation(messages, tools);
    }

    private int tokens(List<Message> turns) {
        return encoder.prompt(DataRecord.conversation(conversation(turns))).length;
    }
}
