package dev.lorica.eval;

import dev.lorica.TokenizerInfo;
import dev.lorica.data.TextEncoder;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;
import java.util.function.IntFunction;

/** Texts as sequences one behind the other. */
record Packed(int[] tokens, int[] positions, int[] lengths, int[] types) {

    /**
     * In their order, as many at once as there is room for.
     *
     * @param sequence the tokens of each, made when they are needed
     */
    static void each(
            TokenizerInfo info,
            int count,
            IntFunction<int[]> sequence,
            int mostTokens,
            int mostSequences,
            Consumer<Packed> use) {
        List<int[]> waiting = new ArrayList<>();
        int tokens = 0;
        for (int i = 0; i < count; i++) {
            int[] ids = sequence.apply(i);
            if (!waiting.isEmpty() && (tokens + ids.length > mostTokens || waiting.size() == mostSequences)) {
                use.accept(of(waiting, tokens, info));
                waiting.clear();
                tokens = 0;
            }
            waiting.add(ids);
            tokens += ids.length;
        }
        if (!waiting.isEmpty()) {
            use.accept(of(waiting, tokens, info));
        }
    }

    private static Packed of(List<int[]> sequences, int count, TokenizerInfo info) {
        int[] tokens = new int[count];
        int[] positions = new int[count];
        int[] lengths = new int[sequences.size()];
        int at = 0;
        for (int s = 0; s < lengths.length; s++) {
            int[] ids = sequences.get(s);
            lengths[s] = ids.length;
            for (int i = 0; i < ids.length; i++) {
                tokens[at] = ids[i];
                positions[at++] = i;
            }
        }
        return new Packed(tokens, positions, lengths, TextEncoder.types(info, tokens, lengths));
    }
}
