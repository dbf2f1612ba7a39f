package dev.lorica.convert;

/**
 * How the rows of a tensor in GGUF follow from those that Hugging Face stores. Of an adapter's B, a magnitude and a bias the same
 * holds.
 */
sealed interface RowOrder {
    RowOrder SAME = new Same();
    /** GPT-2's Conv1D: Hugging Face has inputs as rows. */
    RowOrder TRANSPOSED = new Transposed();

    /** Row {@code i} of GGUF is row {@code of(rows)[i]} of Hugging Face; {@code null}: the same row. */
    long[] of(int rows);

    record Same() implements RowOrder {
        @Override
        public long[] of(int rows) {
            return null;
        }
    }

    record Transposed() implements RowOrder {
        @Override
        public long[] of(int rows) {
            return null;
        }
    }

    /**
     * RoPE in neighbouring rows. Hugging Face rotates row j of a head with row j + d/2; llama.cpp's Llama and what its converter
     * derives from it has the two next to each other.
     */
    record RopePairs(int heads) implements RowOrder {
        @Override
        public long[] of(int rows) {
            int size = rows / heads;
            long[] order = new long[rows];
            for (int i = 0; i < rows; i++) {
                int within = i % size;
                order[i] = i - within + within / 2 + (within % 2) * (size / 2);
            }
            return order;
        }
    }

    /**
     * A fused q, k and v. Falcon and GPT-NeoX store one group after another: its heads of q, then one of k and one of v. llama.cpp has
     * all of q, all of k, all of v.
     */
    record GroupedQkv(int heads, int groups, int headDim) implements RowOrder {
        @Override
        public long[] of(int rows) {
            int perGroup = heads / groups;
            long[] order = new long[rows];
            int i = 0;
            for (int part = 0; part < 3; part++) {
                for (int group = 0; group < groups; group++) {
                    int first = group * (perGroup + 2) + (part == 0 ? 0 : perGroup + part - 1);
                    for (int row = 0; row < (part == 0 ? perGroup : 1) * headDim; row++) {
                        order[i++] = (long) first * headDim + row;
                    }
                }
            }
            return order;
        }
    }

    /** The first rows only: an embedding has more of them than the tokenizer has tokens; or not the first ones. */
    record From(int firstRow) implements RowOrder {
        @Override
        public long[] of(int rows) {
            long[] order = new long[rows];
            for (int i = 0; i < rows; i++) {
                order[i] = firstRow + i;
            }
            return order;
        }
    }
}
