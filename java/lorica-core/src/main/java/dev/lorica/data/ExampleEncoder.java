package dev.lorica.data;

import dev.lorica.Tokenizer;
import dev.lorica.TokenizerInfo;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * Turns records into examples and prompts into ids. Training and generation both come here, so that a tuned model is
 * asked in the very ids that it was trained with.
 *
 * <p>Each segment of an example is tokenized by itself: where the response begins, a token begins, in training as in
 * generation. BOS stands once at the beginning if the vocabulary asks for it, EOS once at the end, always trained on.
 */
public final class ExampleEncoder {
    /** Texts given to the tokenizer at once, enough to keep its threads busy. */
    private static final int TEXTS_AT_ONCE = 8192;

    private final Tokenizer tokenizer;
    private final TokenizerInfo info;
    private final PromptTemplate template;
    private final boolean trainOnPrompt;

    /**
     * SentencePiece puts a space before whatever it encodes. That is right at the start of an example but not in its
     * middle: a segment there is encoded behind this line break, whose ids are then taken off again. Empty for other
     * tokenizers.
     */
    private final String guard;

    private final int[] guardIds;

    public ExampleEncoder(Tokenizer tokenizer, PromptTemplate template, boolean trainOnPrompt) {
        this.tokenizer = tokenizer;
        this.info = tokenizer.info();
        this.template = template;
        this.trainOnPrompt = trainOnPrompt;
        guard = info.model().equals("llama") ? "\n" : "";
        guardIds = guard.isEmpty() ? new int[0] : tokenizer.encode(guard, false, false);
    }

    /** The ids that generation begins with; {@code input} may be empty. */
    public int[] prompt(String instruction, String input) {
        int[] ids = tokenizer.encode(template.render(instruction, input), false, template.parseSpecial());
        return concat(needsBos(ids) ? new int[] {info.bos()} : new int[0], ids);
    }

    /** One example per record, in order, of any length. Records with nothing in them are not for here. */
    public List<Example> encode(List<DataRecord> records) {
        List<Example> examples = new ArrayList<>(records.size());
        List<List<Segment>> waiting = new ArrayList<>();
        int texts = 0;
        for (DataRecord record : records) {
            List<Segment> segments = template.segments(record);
            waiting.add(segments);
            texts += segments.size();
            if (texts >= TEXTS_AT_ONCE) {
                encodeSegments(waiting, texts, examples);
                waiting.clear();
                texts = 0;
            }
        }
        encodeSegments(waiting, texts, examples);
        return examples;
    }

    private void encodeSegments(List<List<Segment>> waiting, int count, List<Example> out) {
        List<String> texts = new ArrayList<>(count);
        boolean[] parseSpecial = new boolean[count];
        for (List<Segment> segments : waiting) {
            for (int i = 0; i < segments.size(); i++) {
                parseSpecial[texts.size()] = segments.get(i).parseSpecial();
                texts.add(
                        i == 0
                                ? segments.get(i).text()
                                : guard + segments.get(i).text());
            }
        }
        List<int[]> ids = tokenizer.encodeBatch(texts, parseSpecial);
        int next = 0;
        for (List<Segment> segments : waiting) {
            List<int[]> parts = new ArrayList<>(segments.size());
            for (int i = 0; i < segments.size(); i++, next++) {
                parts.add(i == 0 ? ids.get(next) : withoutGuard(ids.get(next), segments.get(i)));
            }
            out.add(join(segments, parts));
        }
    }

    private int[] withoutGuard(int[] ids, Segment segment) {
        int n = guardIds.length;
        if (ids.length >= n && Arrays.equals(ids, 0, n, guardIds, 0, n)) {
            return Arrays.copyOfRange(ids, n, ids.length);
        }
        // The vocabulary has a token that begins with a line break and goes on as this segment does.
        return tokenizer.encode(segment.text(), false, segment.parseSpecial());
    }

    private Example join(List<Segment> segments, List<int[]> parts) {
        boolean bos = needsBos(parts.get(0));
        int[] last = parts.get(parts.size() - 1);
        boolean hasEos = last.length > 0 && last[last.length - 1] == info.eos();
        boolean eos = info.eos() >= 0 && !hasEos;
        int length =
                (bos ? 1 : 0) + parts.stream().mapToInt(part -> part.length).sum() + (eos ? 1 : 0);
        int[] ids = new int[length];
        boolean[] trained = new boolean[length];
        int at = 0;
        if (bos) {
            ids[at++] = info.bos();
        }
        for (int i = 0; i < parts.size(); i++) {
            int[] part = parts.get(i);
            System.arraycopy(part, 0, ids, at, part.length);
            Arrays.fill(
                    trained,
                    at,
                    at + part.length,
                    trainOnPrompt || segments.get(i).trained());
            at += part.length;
        }
        if (eos) {
            ids[at] = info.eos();
        }
        trained[length - 1] |= eos || hasEos;
        return new Example(ids, trained);
    }

    /** False also for text that was prepared with BOS already written out. */
    private boolean needsBos(int[] first) {
        return info.addBos() && info.bos() >= 0 && (first.length == 0 || first[0] != info.bos());
    }

    private static int[] concat(int[] a, int[] b) {
        int[] both = Arrays.copyOf(a, a.length + b.length);
        System.arraycopy(b, 0, both, a.length, b.length);
        return both;
    }
}
