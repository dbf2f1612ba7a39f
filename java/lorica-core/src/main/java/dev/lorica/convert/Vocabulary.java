package dev.lorica.convert;

import dev.lorica.internal.NativeGgufWriter;
import java.util.ArrayList;
import java.util.List;

/** A vocabulary as GGUF stores it. Token types are GGUF's, which are SentencePiece's. */
final class Vocabulary {
    static final int NORMAL = 1;
    static final int UNKNOWN = 2;
    static final int CONTROL = 3;
    static final int USER_DEFINED = 4;
    static final int UNUSED = 5;
    static final int BYTE = 6;

    /** Of a token that is never merged into. */
    static final float NO_SCORE = -1000;

    private final List<String> tokens = new ArrayList<>();
    private final List<Integer> types = new ArrayList<>();
    private final List<Float> scores = new ArrayList<>();

    /** {@code llama}, {@code gpt2} or {@code bert}. */
    String model;
    /** {@code tokenizer.ggml.pre}, {@code null} where there is none. */
    String pre;
    /** Of byte-level BPE, {@code "left right"}; {@code null} for SentencePiece. */
    List<String> merges;
    /** {@code null}: not said. */
    Boolean addSpacePrefix;
    /** Of BERT's WordPiece. */
    boolean lowercase;

    boolean stripAccents;

    int size() {
        return tokens.size();
    }

    int idOf(String token) {
        return tokens.indexOf(token);
    }

    /** Puts a token at an id, filling the ids before it with unused ones. */
    void set(int id, String token, int type, float score) {
        fill(id + 1);
        tokens.set(id, token);
        types.set(id, type);
        scores.set(id, score);
    }

    void fill(int size) {
        for (int id = tokens.size(); id < size; id++) {
            tokens.add("[PAD" + id + "]");
            types.add(UNUSED);
            scores.add(NO_SCORE);
        }
    }

    String token(int id) {
        return tokens.get(id);
    }

    float score(int id) {
        return scores.get(id);
    }

    void writeTo(NativeGgufWriter writer) {
        writer.set("tokenizer.ggml.model", model);
        if (pre != null) {
            writer.set("tokenizer.ggml.pre", pre);
        }
        writer.set("tokenizer.ggml.tokens", tokens);
        if (model.equals("bert")) {
            writer.set("tokenizer.ggml.normalizer.lowercase", lowercase);
            writer.set("tokenizer.ggml.normalizer.strip_accents", stripAccents);
        } else if (merges == null) {
            float[] values = new float[scores.size()];
            for (int i = 0; i < values.length; i++) {
                values[i] = scores.get(i);
            }
            writer.set("tokenizer.ggml.scores", values);
        }
        writer.set(
                "tokenizer.ggml.token_type",
                types.stream().mapToInt(Integer::intValue).toArray());
        if (merges != null) {
            writer.set("tokenizer.ggml.merges", merges);
        }
        if (addSpacePrefix != null) {
            writer.set("tokenizer.ggml.add_space_prefix", addSpacePrefix);
        }
    }
}
