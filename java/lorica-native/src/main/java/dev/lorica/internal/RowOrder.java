package dev.lorica.internal;

/**
 * How the rows of a tensor in a GGUF file follow from those in Hugging Face's. Whatever else has an element per row follows: a bias,
 * a LoRA's B, a DoRA's magnitudes.
 *
 * @param heads   of q or of k, whose rows are in pairs; of q in a fused layer
 * @param kvHeads of k and of v in a fused layer
 * @param headDim rows of a head
 */
public record RowOrder(Kind kind, int heads, int kvHeads, int headDim) {
    public static final RowOrder SAME = new RowOrder(Kind.SAME, 0, 0, 0);

    public enum Kind {
        SAME,
        /** Within a head of d rows, row 2j + k of GGUF is row j + k·d/2 of Hugging Face. */
        ROPE_PAIRS,
        /** GGUF has all of q, of k and of v; Hugging Face has, for each head of k, its heads of q, then k, then v. */
        GROUPED_QKV
    }

    public boolean isSame() {
        return kind == Kind.SAME;
    }

    /** Row {@code i} of GGUF is row {@code rows()[i]} of Hugging Face; {@code null}: row {@code i}. */
    public long[] rows() {
        return switch (kind) {
            case SAME -> null;
            case ROPE_PAIRS -> ropePairs();
            case GROUPED_QKV -> groupedQkv();
        };
    }

    private long[] ropePairs() {
        long[] rows = new long[Math.multiplyExact(heads, headDim)];
        for (int i = 0; i < rows.length; i++) {
            int within = i % headDim;
            rows[i] = i - within + within / 2 + (within % 2) * (headDim / 2);
        }
        return rows;
    }

    private long[] groupedQkv() {
        long[] rows = new long[Math.multiplyExact(heads + 2 * kvHeads, headDim)];
        int perGroup = heads / kvHeads;
        int i = 0;
        for (int part = 0; part < 3; part++) {
            for (int group = 0; group < kvHeads; group++) {
                int first = group * (perGroup + 2) + (part == 0 ? 0 : perGroup + part - 1);
                for (int row = 0; row < (part == 0 ? perGroup : 1) * headDim; row++) {
                    rows[i++] = (long) first * headDim + row;
                }
            }
        }
        return rows;
    }

    /** Rows as GGUF has them, of rows as Hugging Face has them; of any length. */
    public float[] toGguf(float[] values) {
        return ordered(values, true);
    }

    /** Rows as Hugging Face has them, of rows as GGUF has them; of any length. */
    public float[] toHuggingFace(float[] values) {
        return ordered(values, false);
    }

    private float[] ordered(float[] values, boolean toGguf) {
        long[] rows = rows();
        if (rows == null) {
            return values;
        }
        int length = values.length / rows.length;
        float[] result = new float[values.length];
        for (int i = 0; i < rows.length; i++) {
            int theirs = (int) rows[i];
            System.arraycopy(values, (toGguf ? theirs : i) * length, result, (toGguf ? i : theirs) * length, length);
        }
        return result;
    }
}
