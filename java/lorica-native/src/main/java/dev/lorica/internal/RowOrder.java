package dev.lorica.internal;

/**
 * How the rows of a tensor in a GGUF file follow from those in Hugging Face's, as the model's description says. Whatever else has an
 * element per row follows: a bias, a LoRA's B, a DoRA's magnitudes.
 */
public final class RowOrder {
    public static final RowOrder SAME = new RowOrder(null);

    private final long[] rows;

    /** @param rows row {@code i} of GGUF is row {@code rows[i]} of Hugging Face; {@code null}: row {@code i} */
    RowOrder(long[] rows) {
        this.rows = rows;
    }

    public boolean isSame() {
        return rows == null;
    }

    /** Row {@code i} of GGUF is row {@code rows()[i]} of Hugging Face; {@code null}: row {@code i}. */
    public long[] rows() {
        return isSame() ? null : rows.clone();
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
        if (isSame()) {
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
