package dev.lorica.data;

import dev.lorica.Tokenizer;
import dev.lorica.TokenizerInfo;
import dev.lorica.jinja.JinjaException;
import dev.lorica.jinja.JinjaTemplate;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;

/**
 * A chat template at work for one vocabulary: conversations become segments of text.
 *
 * <p>What is learned is found out while the text is made. What the assistant says in a turn begins where the prompt of that turn
 * ends: the conversation before it, rendered with the beginning of an answer. It ends where the conversation up to this turn
 * ends. A template marked with <code>{% generation %}</code> says itself where both is.
 *
 * <p>Some templates write an earlier turn otherwise once the conversation has gone on: they drop what was thought, or move the
 * system prompt to the last question. What would be learned of such a turn is not what would be asked later. Such a conversation
 * becomes several examples, one for each turn of the assistant, each ending with the turn that is learned.
 *
 * <p>Control tokens come from the template only. Where a message has one written out, a mark inside keeps the tokenizer from
 * taking it for the token.
 */
final class ChatFormat {
    /** A code point that is no character and occurs in no text. */
    private static final char MARK = '\uFDD0';

    /** Begins with a noncharacter, so that it is in no text. */
    private static final String OTHER_ANSWER = "\uFDD1answer";

    /** Prompts with so many characters in common at their end are followed by an answer in the same way. */
    private static final int SAME_ENDING = 4;

    /** Characters at the end of an answer that must be in the text; what stands before them a template may change. */
    private static final int SEEN_OF_ANSWER = 16;

    private static final String END_OF_THOUGHT = "</think>";

    private final ChatTemplate template;
    private final JinjaTemplate jinja;
    private final boolean marksGenerations;
    private final String bos;
    private final String eos;
    private final List<String> controls = new ArrayList<>();
    private final BitSet controlBegins = new BitSet();
    private final AtomicLong unstable = new AtomicLong();

    ChatFormat(ChatTemplate template, Tokenizer tokenizer) {
        this.template = template;
        jinja = JinjaTemplate.compile(template.source());
        marksGenerations = template.source().contains("endgeneration");
        TokenizerInfo info = tokenizer.info();
        bos = info.bos() < 0 ? null : tokenizer.tokenText(info.bos());
        eos = info.eos() < 0 ? null : tokenizer.tokenText(info.eos());
        for (int id = 0; id < info.vocabSize(); id++) {
            if (tokenizer.isControl(id)) {
                String text = tokenizer.tokenText(id);
                if (text.length() > 1) {
                    controls.add(text);
                    controlBegins.set(text.charAt(0));
                }
            }
        }
    }

    /** Conversations of which the template writes a turn otherwise than it is asked; each turn became an example. */
    long unstable() {
        return unstable.get();
    }

    /** The examples that a record gives: mostly one. Each ends with what is learned. */
    List<List<Segment>> examples(DataRecord record) {
        try {
            return examples(conversation(record));
        } catch (JinjaException e) {
            throw refused(record, e);
        }
    }

    private List<List<Segment>> examples(Conversation whole) {
        int length = whole.learnedLength();
        Conversation learned = whole.first(length);
        JinjaTemplate.Rendering all = render(learned, false);
        requireAnswers(learned, all.text());
        List<int[]> spans = marksGenerations ? marked(all) : spans(learned, all.text());
        if (spans != null) {
            return List.of(segments(all.text(), spans, learned));
        }
        unstable.incrementAndGet();
        List<List<Segment>> examples = new ArrayList<>();
        for (int i = 0; i < length; i++) {
            Message message = whole.messages().get(i);
            if (message.isAssistant() && message.trained()) {
                examples.add(single(whole.first(i + 1)));
            }
        }
        return examples;
    }

    /** Some templates of models that also see take only content in parts, and write nothing of a text. */
    private void requireAnswers(Conversation conversation, String text) {
        for (Message message : conversation.messages()) {
            if (message.isAssistant() && message.trained()) {
                String content = guarded(message.content());
                String answer = content.substring(behindThought(content)).strip();
                if (!text.contains(answer.substring(Math.max(0, answer.length() - SEEN_OF_ANSWER)))) {
                    throw new DataException(
                            "the chat template (" + template.name() + ") does not write what the assistant says");
                }
            }
        }
    }

    /** Templates may leave out what was thought. */
    private static int behindThought(String content) {
        int end = content.lastIndexOf(END_OF_THOUGHT);
        return end < 0 ? 0 : end + END_OF_THOUGHT.length();
    }

    /** What generation begins with. What the assistant said before is a segment of its own here too, as it was in training. */
    List<Segment> prompt(DataRecord record) {
        Conversation conversation = conversation(record);
        List<Message> messages = conversation.messages();
        int length = messages.size();
        while (length > 1 && messages.get(length - 1).isAssistant()) {
            length--;
        }
        Conversation asked = conversation.first(length);
        try {
            String text = render(asked, true).text();
            List<int[]> spans = spans(asked, text);
            return segments(text, spans == null ? List.of() : spans, asked);
        } catch (JinjaException e) {
            throw refused(record, e);
        }
    }

    /** The whole text of a conversation, as transformers' {@code apply_chat_template} makes it. */
    String text(Conversation conversation, boolean addGenerationPrompt) {
        return render(conversation.withSystem(template.system()), addGenerationPrompt)
                .text()
                .replace(Character.toString(MARK), "");
    }

    private Conversation conversation(DataRecord record) {
        if (record.isText()) {
            throw new DataException((record.line() > 0 ? "line " + record.line() : "a record")
                    + " is a plain text, which a chat template is not for; take --template plain");
        }
        return record.asConversation().withSystem(template.system());
    }

    private DataException refused(DataRecord record, JinjaException e) {
        return new DataException(
                (record.line() > 0 ? "line " + record.line() : "a conversation")
                        + (e.isRaised() ? ": the chat template (" : ": the chat template fails (") + template.name()
                        + ")"
                        + (e.isRaised() ? " does not take this conversation: " : ": ") + e.getMessage(),
                e);
    }

    private JinjaTemplate.Rendering render(Conversation conversation, boolean addGenerationPrompt) {
        List<Object> messages = new ArrayList<>(conversation.messages().size());
        for (Message message : conversation.messages()) {
            messages.add(message.variables(guarded(message.content())));
        }
        Map<String, Object> variables = new LinkedHashMap<>();
        variables.put("messages", messages);
        variables.put("tools", conversation.tools());
        variables.put("documents", null);
        variables.put("add_generation_prompt", addGenerationPrompt);
        if (bos != null) {
            variables.put("bos_token", bos);
        }
        if (eos != null) {
            variables.put("eos_token", eos);
        }
        return jinja.render(variables, ChatTemplate.DATE);
    }

    /** With a mark inside whatever reads like a control token. */
    private String guarded(String content) {
        StringBuilder guarded = null;
        int from = 0;
        for (int i = 0; i < content.length(); i++) {
            if (controlBegins.get(content.charAt(i)) && beginsControl(content, i)) {
                guarded = guarded == null ? new StringBuilder() : guarded;
                guarded.append(content, from, i + 1).append(MARK);
                from = i + 1;
            }
        }
        return guarded == null
                ? content
                : guarded.append(content, from, content.length()).toString();
    }

    private boolean beginsControl(String text, int at) {
        for (String control : controls) {
            if (text.startsWith(control, at)) {
                return true;
            }
        }
        return false;
    }

    private static List<int[]> marked(JinjaTemplate.Rendering rendering) {
        return rendering.generations().stream()
                .map(span -> new int[] {span.begin(), span.end()})
                .toList();
    }

    /**
     * Where in {@code text} the assistant's turns are; {@code null} where one of them does not stand there as it was said.
     * {@code text} is the conversation, perhaps with the beginning of an answer behind it.
     */
    private List<int[]> spans(Conversation conversation, String text) {
        List<int[]> spans = new ArrayList<>();
        for (int i = 0; i < conversation.messages().size(); i++) {
            Message message = conversation.messages().get(i);
            if (!message.isAssistant()) {
                continue;
            }
            int begin = begin(conversation, i, text);
            String said = render(conversation.first(i + 1), false).text();
            int end = commonEnd(said, text);
            if (begin < 0
                    || !said.startsWith(text.substring(0, begin))
                    || end <= begin
                    || !isClosing(said.substring(end))) {
                return null;
            }
            spans.add(new int[] {begin, end});
        }
        return spans;
    }

    /** Where the prompt of turn {@code i} ends in {@code text}, −1: the text does not begin with it. */
    private int begin(Conversation conversation, int i, String text) {
        if (i == 0) {
            // Nothing was asked: the turn is all that the text begins with, but for BOS.
            return bos != null && text.startsWith(bos) ? bos.length() : 0;
        }
        String prompt = render(conversation.first(i), true).text();
        return text.startsWith(prompt) ? prompt.length() : -1;
    }

    /** Characters with which both begin, but not so many that a control token is cut in two. */
    private int commonEnd(String a, String b) {
        int most = Math.min(a.length(), b.length());
        int n = 0;
        while (n < most && a.charAt(n) == b.charAt(n)) {
            n++;
        }
        return n == a.length() ? n : Math.min(wholeControls(a, n), wholeControls(b, n));
    }

    private int wholeControls(String text, int end) {
        for (String control : controls) {
            for (int from = Math.max(0, end - control.length() + 1); from < end; from++) {
                if (text.startsWith(control, from)) {
                    return from;
                }
            }
        }
        return end;
    }

    /** Whether there is nothing but control tokens and white space, as some templates put behind a whole conversation. */
    private boolean isClosing(String rest) {
        String left = rest;
        while (!left.isBlank()) {
            String text = left.stripLeading();
            String control =
                    controls.stream().filter(text::startsWith).findFirst().orElse(null);
            if (control == null) {
                return false;
            }
            left = text.substring(control.length());
        }
        return true;
    }

    /**
     * A conversation of which the last turn alone is learned: its prompt as it will be asked, and behind it what the template
     * makes of the answer.
     */
    private List<Segment> single(Conversation conversation) {
        int last = conversation.messages().size() - 1;
        String text = render(conversation, false).text();
        String prompt = last == 0
                ? text.substring(0, begin(conversation, 0, text))
                : render(conversation.first(last), true).text();
        if (!text.startsWith(prompt)) {
            int begin = beginOfAnswer(conversation, text);
            String before = text.substring(0, begin);
            // A template that begins an answer (<think>) where it writes none keeps its own way; there is no common
            // one.
            prompt = commonSuffix(before, prompt) >= SAME_ENDING ? prompt : before;
            text = prompt + text.substring(begin);
        }
        List<Segment> segments = new ArrayList<>();
        add(segments, prompt, false, false);
        add(segments, text.substring(prompt.length()), true, true);
        return segments;
    }

    /** Where in {@code text} the last answer is, with the blanks in front of it: where another answer makes a difference. */
    private int beginOfAnswer(Conversation conversation, String text) {
        List<Message> messages = new ArrayList<>(conversation.messages());
        messages.set(messages.size() - 1, Message.assistant(OTHER_ANSWER));
        String other =
                render(new Conversation(messages, conversation.tools()), false).text();
        int begin = other.lastIndexOf(OTHER_ANSWER);
        if (begin < 0 || !text.startsWith(other.substring(0, begin))) {
            throw new DataException(
                    "the chat template (" + template.name() + ") does not write what the assistant says");
        }
        while (begin > 0 && (text.charAt(begin - 1) == ' ' || text.charAt(begin - 1) == '\n')) {
            begin--;
        }
        return begin;
    }

    private static int commonSuffix(String a, String b) {
        int n = 0;
        while (n < Math.min(a.length(), b.length()) && a.charAt(a.length() - 1 - n) == b.charAt(b.length() - 1 - n)) {
            n++;
        }
        return n;
    }

    private List<Segment> segments(String text, List<int[]> spans, Conversation conversation) {
        List<Boolean> trained = new ArrayList<>();
        conversation.messages().stream()
                .filter(Message::isAssistant)
                .forEach(message -> trained.add(message.trained()));
        List<Segment> segments = new ArrayList<>();
        int from = 0;
        for (int i = 0; i < spans.size(); i++) {
            int[] span = spans.get(i);
            add(segments, text.substring(from, span[0]), false, false);
            add(segments, text.substring(span[0], span[1]), spans.size() != trained.size() || trained.get(i), true);
            from = span[1];
        }
        add(segments, text.substring(from), false, false);
        return segments;
    }

    /** Adds a segment, in pieces where there is a mark. */
    private static void add(List<Segment> segments, String text, boolean trained, boolean endsTurn) {
        int from = 0;
        for (int mark = text.indexOf(MARK); mark >= 0; mark = text.indexOf(MARK, from)) {
            segments.add(new Segment(text.substring(from, mark), trained, true, false));
            from = mark + 1;
        }
        if (from < text.length()) {
            segments.add(new Segment(text.substring(from), trained, true, endsTurn));
        }
    }
}
