package dev.lorica.data;

import dev.lorica.Tokenizer;
import dev.lorica.TokenizerInfo;
import dev.lorica.jinja.JinjaException;
import dev.lorica.jinja.JinjaTemplate;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
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

    private static final String BEGIN_OF_THOUGHT = "<think>";
    private static final String END_OF_THOUGHT = "</think>";

    private final ChatTemplate template;
    private final JinjaTemplate jinja;
    private final boolean marksGenerations;
    private final String bos;
    private final String eos;
    private final List<String> controls = new ArrayList<>();
    private final BitSet controlBegins = new BitSet();
    private final AtomicLong unstable = new AtomicLong();
    private final AtomicLong emptyTurns = new AtomicLong();
    private final Map<String, AtomicLong> notShown = new ConcurrentHashMap<>();
    /** What the template writes in front of an answer; {@code null}: not yet known. */
    private volatile String opening;

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

    /** Turns that would be learned, were there anything left of them in the text. */
    long emptyTurns() {
        return emptyTurns.get();
    }

    /** What records hold and the template does not show, by name, and how often. */
    Map<String, Long> notShown() {
        Map<String, Long> counts = new TreeMap<>();
        notShown.forEach((name, count) -> counts.put(name, count.get()));
        return counts;
    }

    /**
     * The examples that a record gives: mostly one, none where nothing is learned. Each ends with what is learned.
     *
     * @throws TurnException if the template cannot show it
     */
    List<List<Segment>> examples(DataRecord record) {
        Conversation whole = conversation(record);
        try {
            return examples(whole);
        } catch (JinjaException e) {
            throw refused(whole, e);
        }
    }

    private List<List<Segment>> examples(Conversation whole) {
        Conversation learned = whole.first(whole.learnedLength());
        JinjaTemplate.Rendering all = render(learned, false);
        Conversation left = withoutEmptyTurns(learned, all.text());
        for (int length = left.learnedLength(); length < learned.messages().size(); length = left.learnedLength()) {
            countEmptyTurns(learned, left, length);
            if (length == 0) {
                return List.of();
            }
            learned = learned.first(length);
            all = render(learned, false);
            left = withoutEmptyTurns(learned, all.text());
        }
        countEmptyTurns(learned, left, 0);
        learned = left;
        requireAnswers(learned, all.text());
        countNotShown(learned, all.text());
        List<int[]> marked = marksGenerations ? marked(all) : List.of();
        List<int[]> spans = marksAllTurns(marked, learned) ? marked : spans(learned, all.text());
        if (spans != null) {
            return List.of(segments(all.text(), spans, learned));
        }
        unstable.incrementAndGet();
        List<List<Segment>> examples = new ArrayList<>();
        for (int i = 0; i < learned.messages().size(); i++) {
            Message message = learned.messages().get(i);
            if (message.isAssistant() && message.trained()) {
                examples.add(single(learned.first(i + 1)));
            }
        }
        return examples;
    }

    /** A turn of which nothing is left must not be learned: it would teach to say nothing. */
    private Conversation withoutEmptyTurns(Conversation conversation, String text) {
        Conversation left = conversation;
        for (int i = 0; i < conversation.messages().size(); i++) {
            Message message = conversation.messages().get(i);
            if (message.isAssistant() && message.trained() && !remains(conversation, i, text)) {
                left = left.with(i, message.withTrained(false));
            }
        }
        return left;
    }

    private void countEmptyTurns(Conversation whole, Conversation left, int from) {
        for (int i = from; i < whole.messages().size(); i++) {
            Message message = whole.messages().get(i);
            boolean said = !message.content().isBlank() || !message.others().isEmpty();
            boolean dropped = message.trained() && !left.messages().get(i).trained();
            emptyTurns.addAndGet(dropped && said ? 1 : 0);
        }
    }

    private boolean remains(Conversation conversation, int i, String text) {
        Message message = conversation.messages().get(i);
        String content = guarded(message.content());
        if (!content.substring(behindThought(content)).isBlank()) {
            return true;
        }
        String thought = content.replace(END_OF_THOUGHT, "").replace(BEGIN_OF_THOUGHT, "");
        if (!thought.isBlank() && writes(text, thought)) {
            return true;
        }
        return !message.others().isEmpty()
                && !text.equals(textOrNull(conversation.with(i, message.without(message.others()))));
    }

    /** {@code null}: the template refuses it. */
    private String textOrNull(Conversation conversation) {
        try {
            return render(conversation, false).text();
        } catch (JinjaException e) {
            return null;
        }
    }

    /** Whether the text has the end of what was said in it; what stands before that a template may change. */
    private static boolean writes(String text, String content) {
        String answer = content.strip();
        return text.contains(answer.substring(Math.max(0, answer.length() - SEEN_OF_ANSWER)));
    }

    /** Some templates of models that also see take only content in parts, and write nothing of a text. */
    private void requireAnswers(Conversation conversation, String text) {
        for (int i = 0; i < conversation.messages().size(); i++) {
            Message message = conversation.messages().get(i);
            String content = guarded(message.content());
            if (message.isAssistant()
                    && message.trained()
                    && !writes(text, content.substring(behindThought(content)))) {
                throw notWritten(conversation, i);
            }
        }
    }

    private TurnException notWritten(Conversation conversation, int i) {
        return new TurnException(
                i + 1,
                conversation.messages().get(i).role(),
                "the chat template (" + template.name() + ") does not write what the assistant says",
                null);
    }

    /** A field is not shown if the text is the same without it. */
    private void countNotShown(Conversation conversation, String text) {
        Map<String, Integer> fields = new TreeMap<>();
        for (Message message : conversation.messages()) {
            message.others().forEach(name -> fields.merge(name, 1, Integer::sum));
            String content = guarded(message.content());
            String said = content.substring(behindThought(content));
            if (!message.isAssistant() && !message.more().containsKey(Message.CONTENT) && !writes(text, said)) {
                count("what " + message.role() + " says", 1);
            }
        }
        if (conversation.tools() != null && text.equals(textOrNull(new Conversation(conversation.messages(), null)))) {
            count("tools", 1);
        }
        if (fields.isEmpty()) {
            return;
        }
        boolean none = text.equals(textOrNull(without(conversation, fields.keySet())));
        fields.forEach((name, count) -> {
            if (none || text.equals(textOrNull(without(conversation, List.of(name))))) {
                count(name, count);
            }
        });
    }

    private static Conversation without(Conversation conversation, Collection<String> fields) {
        return new Conversation(
                conversation.messages().stream()
                        .map(message -> message.without(fields))
                        .toList(),
                conversation.tools());
    }

    private void count(String name, int times) {
        notShown.computeIfAbsent(name, key -> new AtomicLong()).addAndGet(times);
    }

    /** Where a template marks only some turns, which are meant cannot be told. */
    private static boolean marksAllTurns(List<int[]> marked, Conversation conversation) {
        return !marked.isEmpty()
                && marked.size()
                        == conversation.messages().stream()
                                .filter(Message::isAssistant)
                                .count();
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
            throw new DataException(refused(asked, e).at(record, ""), e);
        } catch (TurnException e) {
            throw new DataException(e.at(record, ""), e);
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
            throw new DataException(
                    record.where("") + " is a plain text, which a chat template is not for; take the template plain");
        }
        return record.asConversation().withSystem(template.system());
    }

    /** Which turn it is: with all that are fewer the template does not fail. */
    private TurnException refused(Conversation conversation, JinjaException e) {
        int count = conversation.messages().size();
        JinjaException cause = e;
        for (boolean fails = true; fails && count > 1; ) {
            try {
                render(conversation.first(count - 1), false);
                fails = false;
            } catch (JinjaException shorter) {
                cause = shorter;
                count--;
            }
        }
        return new TurnException(
                count,
                conversation.messages().get(count - 1).role(),
                "the chat template ("
                        + (cause.isRaised()
                                ? template.name() + ") does not take this conversation: "
                                : template.name() + ") fails: ")
                        + cause.getMessage(),
                cause);
    }

    private JinjaTemplate.Rendering render(Conversation conversation, boolean addGenerationPrompt) {
        List<Object> messages = new ArrayList<>(conversation.messages().size());
        for (Message message : conversation.messages()) {
            messages.add(guarded((Object) message.variables()));
        }
        Map<String, Object> variables = new LinkedHashMap<>();
        variables.put("messages", messages);
        variables.put("tools", guarded(conversation.tools()));
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

    /** With a mark inside whatever reads like a control token, in texts wherever they are. */
    private Object guarded(Object value) {
        if (value instanceof String text) {
            return guarded(text);
        }
        if (value instanceof List<?> list) {
            List<Object> elements = new ArrayList<>(list.size());
            list.forEach(element -> elements.add(guarded(element)));
            return elements;
        }
        if (value instanceof Map<?, ?> map) {
            Map<String, Object> entries = new LinkedHashMap<>();
            map.forEach((key, entry) -> entries.put(guarded((String) key), guarded(entry)));
            return entries;
        }
        return value;
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
        boolean asked = conversation.messages().subList(0, i).stream()
                .anyMatch(message -> !message.role().equals("system"));
        if (asked) {
            String prompt = render(conversation.first(i), true).text();
            return text.startsWith(prompt) ? prompt.length() : -1;
        }
        return beginOfFirst(conversation.first(i + 1), text);
    }

    /** The assistant speaks first; not every template has a prompt for that. */
    private int beginOfFirst(Conversation conversation, String text) {
        int last = conversation.messages().size() - 1;
        if (last > 0) {
            try {
                String prompt = render(conversation.first(last), true).text();
                if (text.startsWith(prompt)) {
                    return prompt.length();
                }
            } catch (JinjaException e) {
                // A template that wants a question says so; what it writes in front of an answer is found below.
            }
        }
        int difference = difference(conversation, text);
        int behindBlanks = withoutBlanks(text, difference);
        for (int end : new int[] {difference, behindBlanks}) {
            for (int length = opening().length(); length >= SAME_ENDING; length--) {
                if (text.startsWith(opening().substring(0, length), end - length)) {
                    return end;
                }
            }
        }
        return behindBlanks;
    }

    private static int withoutBlanks(String text, int end) {
        int at = end;
        while (at > 0 && (text.charAt(at - 1) == ' ' || text.charAt(at - 1) == '\n')) {
            at--;
        }
        return at;
    }

    /** What {@code add_generation_prompt} adds behind a question. */
    private String opening() {
        if (opening == null) {
            Conversation question = Conversation.of(Message.user("?"));
            String asked = textOrNull(question);
            if (asked == null) {
                opening = "";
            } else {
                String prompt = render(question, true).text();
                opening = prompt.substring(commonEnd(prompt, asked));
            }
        }
        return opening;
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
            int begin = withoutBlanks(text, difference(conversation, text));
            String before = text.substring(0, begin);
            // A template that begins an answer (<think>) where it writes none keeps its own way; there is no common
            // one.
            prompt = commonSuffix(before, prompt) >= SAME_ENDING ? prompt : before;
            text = prompt + text.substring(begin);
        }
        List<Segment> segments = new ArrayList<>();
        add(segments, prompt, null, false);
        add(segments, text.substring(prompt.length()), conversation.messages().get(last), true);
        return segments;
    }

    /** Where in {@code text} the last answer is: where another answer makes a difference. */
    private int difference(Conversation conversation, String text) {
        int last = conversation.messages().size() - 1;
        String other = render(conversation.with(last, Message.assistant(OTHER_ANSWER)), false)
                .text();
        int begin = other.lastIndexOf(OTHER_ANSWER);
        if (begin < 0) {
            throw notWritten(conversation, last);
        }
        return commonEnd(other.substring(0, begin), text);
    }

    private static int commonSuffix(String a, String b) {
        int n = 0;
        while (n < Math.min(a.length(), b.length()) && a.charAt(a.length() - 1 - n) == b.charAt(b.length() - 1 - n)) {
            n++;
        }
        return n;
    }

    private List<Segment> segments(String text, List<int[]> spans, Conversation conversation) {
        List<Message> said =
                conversation.messages().stream().filter(Message::isAssistant).toList();
        boolean each = spans.size() == said.size();
        if (!each && said.stream().anyMatch(message -> message.weight() != 1)) {
            int at = conversation.messages().indexOf(said.get(0));
            throw new TurnException(
                    at + 1,
                    "assistant",
                    "the chat template (" + template.name() + ") does not mark what is learned turn by turn, so that"
                            + " turns cannot have weights",
                    null);
        }
        List<Segment> segments = new ArrayList<>();
        int from = 0;
        for (int i = 0; i < spans.size(); i++) {
            int[] span = spans.get(i);
            add(segments, text.substring(from, span[0]), null, false);
            Message turn = each ? said.get(i) : Message.assistant("");
            add(segments, text.substring(span[0], span[1]), turn.trained() ? turn : null, true);
            from = span[1];
        }
        add(segments, text.substring(from), null, false);
        return segments;
    }

    /**
     * Adds a segment, in pieces where there is a mark.
     *
     * @param learned the turn that it is; {@code null}: it is not learned
     */
    private static void add(List<Segment> segments, String text, Message learned, boolean endsTurn) {
        boolean trained = learned != null;
        float weight = trained ? learned.weight() : 1;
        int from = 0;
        for (int mark = text.indexOf(MARK); mark >= 0; mark = text.indexOf(MARK, from)) {
            segments.add(new Segment(text.substring(from, mark), trained, true, false, weight));
            from = mark + 1;
        }
        if (from < text.length()) {
            segments.add(new Segment(text.substring(from), trained, true, endsTurn, weight));
        }
    }
}
