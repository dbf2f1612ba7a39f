package dev.lorica.data;

import dev.lorica.Tokenizer;
import dev.lorica.TokenizerInfo;
import dev.lorica.internal.Arguments;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Iterator;
import java.util.List;
import java.util.Map;

/**
 * Turns records into examples and prompts into ids. Training and generation both come here, so that a tuned model is
 * asked in the very ids that it was trained with.
 *
 * <p>Each segment of an example is tokenized by itself: where the response begins, a token begins, in training as in
 * generation. BOS stands once at the beginning if the vocabulary asks for it, whether the template writes it or not. An example
 * ends with EOS, always trained on, or with the token with which the template ends the assistant's turn.
 */
public final class ExampleEncoder {
    /** Texts given to the tokenizer at once, enough to keep its threads busy, and the most characters of them. */
    private static final int TEXTS_AT_ONCE = 8192;

    private static final long CHARACTERS_AT_ONCE = 1 << 20;

    private final Tokenizer tokenizer;
    private final TokenizerInfo info;
    private final PromptTemplate template;
    private final ChatFormat chat;
    private final boolean trainOnPrompt;
    private long turnsWithoutEnd;

    /**
     * SentencePiece puts a space before whatever it encodes. That is right at the start of an example but not in its
     * middle: a segment there is encoded behind this line break, whose ids are then taken off again. Empty for other
     * tokenizers.
     */
    private final String guard;

    private final int[] guardIds;

    /**
     * Makes ids with a tokenizer, which stays the caller's.
     *
     * @param tokenizer     of the model
     * @param template      what stands around prompts
     * @param trainOnPrompt whether the prompt is learned too
     */
    public ExampleEncoder(Tokenizer tokenizer, PromptTemplate template, boolean trainOnPrompt) {
        Arguments.given(tokenizer, "tokenizer");
        this.tokenizer = tokenizer;
        this.info = tokenizer.info();
        this.template = template;
        this.chat = template instanceof ChatTemplate chatTemplate ? new ChatFormat(chatTemplate, tokenizer) : null;
        this.trainOnPrompt = trainOnPrompt;
        guard = info.model().equals("llama") ? "\n" : "";
        guardIds = guard.isEmpty() ? new int[0] : tokenizer.encode(guard, false, false);
    }

    /**
     * {@return the ids that generation begins with}
     *
     * @param instruction what is asked
     * @param input       what it is to be applied to; may be empty
     */
    public int[] prompt(String instruction, String input) {
        Arguments.given(instruction, "instruction");
        return prompt(new DataRecord(instruction, input, "", 0));
    }

    /**
     * {@return the ids with which an answer to this begins: the prompt of a question, a conversation up to the last that is not the
     * assistant's} The response is not looked at.
     *
     * @param record the record
     */
    public int[] prompt(DataRecord record) {
        Arguments.given(record, "record");
        List<Segment> segments =
                template instanceof TextTemplate text ? List.of(text.question(record)) : chat.prompt(record);
        List<int[]> parts = encodeSegments(List.of(segments)).get(0);
        return join(segments, parts, false).ids();
    }

    /** What becomes of a record. */
    interface Sink {
        /**
         * @param examples of any length; none where there is nothing in the record to learn
         * @param rejected of a pair: those of its worse side; {@code null}: it is none
         * @param unshown  why the template cannot show the record, {@code null}: it can
         */
        void accept(DataRecord record, List<Example> examples, List<Example> rejected, TurnException unshown);
    }

    /** A record as text. */
    private record Shown(List<List<Segment>> examples, TurnException unshown) {}

    /** Every record in order. */
    void encode(Iterator<DataRecord> records, Sink sink) {
        List<DataRecord> waiting = new ArrayList<>();
        long characters = 0;
        while (records.hasNext()) {
            DataRecord record = records.next();
            waiting.add(record);
            characters += record.size();
            if (waiting.size() * 2 >= TEXTS_AT_ONCE || characters >= CHARACTERS_AT_ONCE) {
                encode(waiting, sink);
                waiting.clear();
                characters = 0;
            }
        }
        encode(waiting, sink);
    }

    private void encode(List<DataRecord> records, Sink sink) {
        List<DataRecord> sides = new ArrayList<>(records.size());
        for (DataRecord record : records) {
            sides.add(record);
            if (record.rejected() != null) {
                sides.add(record.rejected());
            }
        }
        // A chat template is run several times for a conversation; that is more work than its tokens are.
        List<Shown> all = (chat == null ? sides.stream() : sides.parallelStream())
                .map(this::shown)
                .toList();
        List<List<Segment>> examples =
                all.stream().flatMap(shown -> shown.examples.stream()).toList();
        List<List<int[]>> parts = encodeSegments(examples);
        Iterator<Shown> shown = all.iterator();
        Iterator<List<int[]>> ids = parts.iterator();
        for (DataRecord record : records) {
            Shown side = shown.next();
            List<Example> encoded = joined(side, ids, record.weight());
            if (record.rejected() == null) {
                sink.accept(record, encoded, null, side.unshown);
                continue;
            }
            Shown other = shown.next();
            sink.accept(
                    record,
                    encoded,
                    joined(other, ids, record.weight()),
                    side.unshown != null ? side.unshown : other.unshown);
        }
    }

    private List<Example> joined(Shown shown, Iterator<List<int[]>> ids, float weight) {
        List<Example> examples = new ArrayList<>();
        for (List<Segment> segments : shown.examples) {
            examples.add(join(segments, ids.next(), true).weighted(weight));
        }
        return examples;
    }

    private Shown shown(DataRecord record) {
        if (record.isEmpty()) {
            return new Shown(List.of(), null);
        }
        try {
            return new Shown(
                    template instanceof TextTemplate text ? List.of(text.segments(record)) : chat.examples(record),
                    null);
        } catch (TurnException e) {
            return new Shown(List.of(), e);
        }
    }

    /** Ids of plain text behind other text of the same whole. */
    int[] encodeInside(String text, boolean parseSpecial) {
        return withoutGuard(tokenizer.encode(guard + text, false, parseSpecial), text, parseSpecial);
    }

    /** The ids of every segment. */
    private List<List<int[]>> encodeSegments(List<List<Segment>> examples) {
        int count = examples.stream().mapToInt(List::size).sum();
        List<String> texts = new ArrayList<>(count);
        boolean[] parseSpecial = new boolean[count];
        for (List<Segment> segments : examples) {
            for (int i = 0; i < segments.size(); i++) {
                parseSpecial[texts.size()] = segments.get(i).parseSpecial();
                texts.add(
                        i == 0
                                ? segments.get(i).text()
                                : guard + segments.get(i).text());
            }
        }
        List<int[]> ids = tokenizer.encodeBatch(texts, parseSpecial);
        List<List<int[]>> all = new ArrayList<>(examples.size());
        int next = 0;
        for (List<Segment> segments : examples) {
            List<int[]> parts = new ArrayList<>(segments.size());
            for (int i = 0; i < segments.size(); i++, next++) {
                Segment segment = segments.get(i);
                parts.add(i == 0 ? ids.get(next) : withoutGuard(ids.get(next), segment.text(), segment.parseSpecial()));
            }
            all.add(parts);
        }
        return all;
    }

    private int[] withoutGuard(int[] ids, String text, boolean parseSpecial) {
        int n = guardIds.length;
        if (ids.length >= n && Arrays.equals(ids, 0, n, guardIds, 0, n)) {
            return Arrays.copyOfRange(ids, n, ids.length);
        }
        // The vocabulary has a token that begins with a line break and goes on as this segment does.
        return tokenizer.encode(text, false, parseSpecial);
    }

    /** @param ends whether the example is to end here; otherwise it is the beginning of one */
    private Example join(List<Segment> segments, List<int[]> parts, boolean ends) {
        boolean bos = needsBos(parts.isEmpty() ? new int[0] : parts.get(0));
        int total = 2;
        for (int[] part : parts) {
            total += part.length;
        }
        int[] ids = new int[total];
        boolean[] trained = new boolean[total];
        float[] weights = segments.stream().anyMatch(segment -> segment.weight() != 1) ? new float[total] : null;
        float weight = 1;
        int at = 0;
        if (bos) {
            ids[at++] = info.bos();
        }
        boolean turnEnded = false;
        for (int i = 0; i < parts.size(); i++) {
            Segment segment = segments.get(i);
            int[] part = parts.get(i);
            int learned = part.length;
            turnEnded = false;
            if (segment.endsTurn()) {
                int end = lastEndOfGeneration(part);
                turnEnded = end >= 0;
                learned = turnEnded ? end + 1 : learned;
                turnsWithoutEnd += ends && segment.trained() && !turnEnded ? 1 : 0;
            }
            int taken = turnEnded && ends && i == parts.size() - 1 ? learned : part.length;
            System.arraycopy(part, 0, ids, at, taken);
            Arrays.fill(trained, at, at + (segment.trained() ? learned : 0), true);
            weight = segment.weight();
            if (weights != null) {
                Arrays.fill(weights, at, at + taken, weight);
            }
            at += taken;
        }
        if (trainOnPrompt) {
            Arrays.fill(trained, 0, at, true);
        }
        if (ends) {
            boolean hasEos = turnEnded || at > 0 && ids[at - 1] == info.eos();
            if (!hasEos && info.eos() >= 0 && endsLearned(segments)) {
                ids[at++] = info.eos();
                hasEos = true;
            }
            trained[at - 1] |= hasEos && endsLearned(segments);
            if (weights != null) {
                weights[at - 1] = weight;
            }
        }
        return new Example(
                Arrays.copyOf(ids, at),
                Arrays.copyOf(trained, at),
                weights == null ? null : Arrays.copyOf(weights, at));
    }

    /** Not so when a template marks what is learned itself and puts something behind it. */
    private static boolean endsLearned(List<Segment> segments) {
        return segments.isEmpty() || segments.get(segments.size() - 1).trained();
    }

    private int lastEndOfGeneration(int[] ids) {
        for (int i = ids.length - 1; i >= 0; i--) {
            if (tokenizer.isEndOfGeneration(ids[i])) {
                return i;
            }
        }
        return -1;
    }

    /** What the assistant said in a turn that no token ends, up to now. */
    long turnsWithoutEnd() {
        return turnsWithoutEnd;
    }

    /** Turns of which the template leaves nothing, up to now. */
    long emptyTurns() {
        return chat == null ? 0 : chat.emptyTurns();
    }

    /** What records hold and the template does not show, and how often, up to now. */
    Map<String, Long> notShown() {
        return chat == null ? Map.of() : chat.notShown();
    }

    /** Conversations of which every turn became an example of its own, up to now. */
    long unstableConversations() {
        return chat == null ? 0 : chat.unstable();
    }

    /** False also for text that was prepared with BOS already written out. */
    private boolean needsBos(int[] first) {
        return info.addBos() && info.bos() >= 0 && (first.length == 0 || first[0] != info.bos());
    }
}
