package dev.lorica.convert;

import dev.lorica.files.SafetensorsFile;
import dev.lorica.internal.NativeGgufWriter;
import dev.lorica.internal.RowOrder;
import java.util.ArrayList;
import java.util.List;

/**
 * A tensor on its way from a file of Hugging Face's into a GGUF file.
 *
 * @param gguf    its name there
 * @param file    where it is
 * @param tensor  what it is there
 * @param reading what is changed on the way
 * @param shape   in the GGUF file: rows and columns, or the length of a vector
 */
record ModelTensor(String gguf, SafetensorsFile file, SafetensorsFile.Tensor tensor, Reading reading, int... shape) {
    /**
     * @param order      of the rows
     * @param transposed the file has the columns as rows
     * @param firstRow   rows before it and behind those that are taken are left out; −1: there are none such
     * @param added      to every value
     */
    record Reading(RowOrder order, boolean transposed, int firstRow, float added) {
        boolean isCut() {
            return firstRow >= 0;
        }

        /** Row {@code i} of GGUF is row {@code of(n)[i]} of the file; {@code null}: the same row. */
        long[] rows(int n) {
            if (!isCut()) {
                return order.rows();
            }
            long[] rows = new long[n];
            for (int i = 0; i < n; i++) {
                rows[i] = firstRow + i;
            }
            return rows;
        }
    }

    boolean isVector() {
        return shape.length == 1;
    }

    /** The shape that the file must have; of rows that are cut, the least. */
    List<Long> expected() {
        List<Long> expected = new ArrayList<>();
        for (int size : shape) {
            expected.add((long) size);
        }
        if (reading.transposed() && !isVector()) {
            expected.add(expected.remove(0));
        }
        if (reading.isCut()) {
            expected.set(0, expected.get(0) + reading.firstRow());
        }
        return expected;
    }

    boolean fits() {
        List<Long> expected = expected();
        if (reading.isCut() && tensor.shape().size() == expected.size()) {
            return tensor.shape().get(0) >= expected.get(0)
                    && tensor.shape().subList(1, expected.size()).equals(expected.subList(1, expected.size()));
        }
        return tensor.shape().equals(expected);
    }

    /** @param type of the matrices; vectors, positions and token types are stored in F32 */
    void writeTo(NativeGgufWriter writer, String type) {
        long[] order = reading.rows(shape[0]);
        if (isVector() && (reading.added() != 0 || order != null)) {
            float[] values = file.read(tensor);
            float[] changed = new float[shape[0]];
            for (int i = 0; i < changed.length; i++) {
                changed[i] = values[order == null ? i : (int) order[i]] + reading.added();
            }
            writer.add(gguf, changed);
            return;
        }
        boolean exact = isVector() || gguf.equals("position_embd.weight") || gguf.equals("token_types.weight");
        writer.add(
                gguf,
                exact ? "F32" : type,
                isVector() ? 0 : shape[0],
                shape[shape.length - 1],
                file.path().toString(),
                tensor.offset(),
                tensor.type(),
                isVector() ? null : order,
                reading.transposed() && !isVector());
    }
}
