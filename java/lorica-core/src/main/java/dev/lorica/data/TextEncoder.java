package dev.lorica.data;

import dev.lorica.Tokenizer;
import dev.lorica.TokenizerInfo;
import dev.lorica.internal.Arguments;
import java.util.Arrays;

/**
 * Whole texts as encoders and classifiers read them, as transformers' tokenizers give them: {@code [CLS] a [SEP]}, of two texts
 * {@code [CLS] a [SEP] b [SEP]}, of RoBERTa {@code <s> a </s></s> b </s>}; of decoders with the tokens that their vocabulary puts
 * around a text, and the second text behind a line break. What is longer than there is room for loses its end, of two texts the
 * longer one.
 */
public final class TextEncoder {
    private final Tokenizer tokenizer;
    private final int maxLength;

    /**
     * Reads texts with a tokenizer, which stays the caller's.
     *
     * @param tokenizer of the model
     * @param maxLength the most tokens of a text
     */
    public TextEncoder(Tokenizer tokenizer, int maxLength) {
        this.tokenizer = Arguments.given(tokenizer, "tokenizer");
        this.maxLength = Arguments.atLeast(4, maxLength, "maxLength");
    }

    /**
     * {@return the ids of a text or a pair of texts, with the special tokens that the model expects around them}
     *
     * @param first  the text
     * @param second {@code null} or empty: there is none
     */
    public int[] encode(String first, String second) {
        Arguments.given(first, "first");
        TokenizerInfo info = tokenizer.info();
        boolean isPair = second != null && !second.isEmpty();
        boolean hasEnds = info.addEos() && info.eos() >= 0;
        String head = isPair && !hasEnds ? first + "\n" : first;
        int[] a = tokenizer.encode(head, false, false);
        int[] b = isPair ? tokenizer.encode(second, false, false) : new int[0];
        int begin = info.addBos() ? 1 : 0;
        int between = isPair && hasEnds ? (info.model().equals("bert") ? 1 : 2) : 0;
        int end = hasEnds ? 1 : 0;
        int room = maxLength - begin - between - end;
        int excess = a.length + b.length - room;
        while (excess > 0) {
            if (a.length >= b.length) {
                int cut = Math.min(excess, Math.max(1, a.length - b.length));
                a = Arrays.copyOf(a, a.length - cut);
                excess -= cut;
            } else {
                int cut = Math.min(excess, b.length - a.length);
                b = Arrays.copyOf(b, b.length - cut);
                excess -= cut;
            }
        }
        int[] ids = new int[begin + a.length + between + b.length + end];
        int at = 0;
        if (begin == 1) {
            ids[at++] = info.bos();
        }
        System.arraycopy(a, 0, ids, at, a.length);
        at += a.length;
        for (int i = 0; i < between; i++) {
            ids[at++] = info.eos();
        }
        System.arraycopy(b, 0, ids, at, b.length);
        at += b.length;
        if (end == 1) {
            ids[at] = info.eos();
        }
        // A text of nothing has something to be read too.
        return ids.length > 0 ? ids : new int[] {Math.max(0, info.bos())};
    }

    /**
     * BERT's types of the tokens of packed sequences: 0 in the first text of each, 1 in the second.
     *
     * @param info            what the model's file says of its vocabulary
     * @param tokens          [T] token ids
     * @param sequenceLengths tokens of each sequence; their sum is T
     * @return {@code null} of a vocabulary that has no types
     */
    public static int[] types(TokenizerInfo info, int[] tokens, int[] sequenceLengths) {
        Arguments.given(info, "info");
        Arguments.given(tokens, "tokens");
        Arguments.given(sequenceLengths, "sequenceLengths");
        if (!info.model().equals("bert")) {
            return null;
        }
        int[] types = new int[tokens.length];
        int at = 0;
        for (int length : sequenceLengths) {
            int end = at + length;
            boolean second = false;
            for (; at < end; at++) {
                types[at] = second ? 1 : 0;
                second |= tokens[at] == info.eos();
            }
        }
        return types;
    }
}
