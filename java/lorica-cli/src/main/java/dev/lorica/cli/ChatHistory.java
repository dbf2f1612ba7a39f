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
import java.util.Optional;
import java.util.function.Consumer;

/**
 * A conversation, and what of it goes to the model with the next question: all of it, as long as its context holds that and an
 * answer; then the oldest turns stay behind. With a template for a single question, nothing but that.
 */
final class ChatHistory {
    /** @param answer {@code null}: not yet */
    record Turn(String question, String answer) {}

    private final Tokenizer tokenizer;
    private final Object tools;
    private final int context;
    private final Consumer<String> note;
    private final List<Turn> turns = new ArrayList<>();
    private String system;
    private boolean oneByOne;
    private ExampleEncoder encoder;
    private boolean forgets;
    /** The first turn that still goes to the model. */
    private int from;

    /**
     * @param tools   that the assistant may call, {@code null}: none
     * @param context tokens that the model's context has
     * @param note    hears, once each, of what does not go to the model
     */
    ChatHistory(
            PromptTemplate template,
            String system,
            Object tools,
            Tokenizer tokenizer,
            int context,
            Consumer<String> note) {
        this.system = system;
        this.tools = tools;
        this.tokenizer = tokenizer;
        this.note = note;
        this.context = context;
        use(template);
    }

    /** From now on the conversation is put into this template. */
    void use(PromptTemplate template) {
        oneByOne = template instanceof TextTemplate;
        encoder = new ExampleEncoder(tokenizer, template, false);
        from = 0;
        if (oneByOne) {
            note.accept("note: template \"" + template.name() + "\" is for single questions; each is asked by itself,"
                    + " without what was said before (--chat-template chooses one for conversations)");
        }
    }

    /**
     * The ids of the conversation with a question behind it. Nothing when the question alone is longer than the model's context.
     *
     * @param answer the most tokens of an answer; at least a quarter of the context is left for the conversation
     */
    Optional<int[]> with(String question, int answer) {
        Turn asked = new Turn(question, null);
        int alone = ids(List.of(asked)).length;
        if (alone >= context) {
            note.accept("note: the question has " + Format.count(alone, "token") + "; the model's context has room for "
                    + Format.count(context) + ". Ask a shorter one");
            return Optional.empty();
        }
        from = oneByOne ? turns.size() : from;
        List<Turn> going = new ArrayList<>(turns.subList(from, turns.size()));
        going.add(asked);
        int most = Math.max(context / 4, context - answer);
        int[] ids = ids(going);
        while (going.size() > 1 && ids.length > most) {
            if (!forgets) {
                forgets = true;
                note.accept(
                        "note: the conversation is longer than the model's context holds beside an answer; from here"
                                + " on the oldest turns are left out");
            }
            going.remove(0);
            from++;
            ids = ids(going);
        }
        return Optional.of(ids);
    }

    void add(Turn turn) {
        turns.add(turn);
    }

    /** The last question with its answer. */
    Optional<Turn> last() {
        return turns.isEmpty() ? Optional.empty() : Optional.of(turns.get(turns.size() - 1));
    }

    /** Forgets the last question and its answer. */
    void undo() {
        turns.remove(turns.size() - 1);
        from = 0;
    }

    void clear() {
        turns.clear();
        from = 0;
    }

    String system() {
        return system;
    }

    /** @param text {@code null}: none */
    void system(String text) {
        system = text;
        from = 0;
    }

    /** All that was said, with the system prompt. */
    Conversation all() {
        return conversation(turns);
    }

    private Conversation conversation(List<Turn> turns) {
        List<Message> messages = new ArrayList<>();
        if (system != null) {
            messages.add(Message.system(system));
        }
        for (Turn turn : turns) {
            messages.add(Message.user(turn.question));
            if (turn.answer != null) {
                messages.add(Message.assistant(turn.answer));
            }
        }
        return new Conversation(messages, tools);
    }

    private int[] ids(List<Turn> turns) {
        return encoder.prompt(DataRecord.conversation(conversation(turns)));
    }
}
