package dev.lorica.convert;

import dev.lorica.files.SafetensorsFile;
import dev.lorica.internal.NativeGgufWriter;
import java.util.ArrayList;
import java.util.List;

/**
 * A tensor on its way from a file of Hugging Face's into a GGUF file.
 *
 * @param gguf  its name there
 * @param file  where it is
 * @param tensor what it is there
 * @param order how its rows follow from those of the file
 * @param added to every value
 * @param shape in the GGUF file: rows and columns, or the length of a vector
 */
record ModelTensor(
        String gguf, SafetensorsFile file, SafetensorsFile.Tensor tensor, RowOrder order, float added, int... shape) {

    boolean isVector() {
        return shape.length == 1;
    }

    /** The shape that the file must have; of rows that are cut, the least. */
    List<Long> expected() {
        List<Long> expected = new ArrayList<>();
        for (int size : shape) {
            expected.add((long) size);
        }
        if (order instanceof RowOrder.Transposed && shape.length == 2) {
            expected.add(expected.remove(0));
        }
        if (order instanceof RowOrder.From from) {
            expected.set(0, expected.get(0) + from.firstRow());
        }
        return expected;
    }

    boolean fits() {
        List<Long> expected = expected();
        if (order instanceof RowOrder.From && tensor.shape().size() == expected.size()) {
            return tensor.shape().get(0) >= expected.get(0)
                    && tensor.shape().subList(1, expected.size()).equals(expected.subList(1, expected.size()));
        }
        return tensor.shape().equals(expected);
    }

    /** @param type of the matrices; vectors, positions and token types are stored in F32 */
    void writeTo(NativeGgufWriter writer, String type) {
        if (isVector() && (added != 0 || order.of(shape[0]) != null)) {
            float[] values = file.read(tensor);
            long[] rows = order.of(shape[0]);
            float[] changed = new float[shape[0]];
            for (int i = 0; i < changed.length; i++) {
                changed[i] = values[rows == null ? i : (int) rows[i]] + added;
            }
            writer.add(gguf, changed);
            return;
        }
        boolean exact = isVector() || gguf.equals("position_embd.weight") || gguf.equals("token_types.weight");
        int rows = isVector() ? 0 : shape[0];
        writer.add(
                gguf,
                exact ? "F32" : type,
                rows,
                shape[shape.length - 1],
                file.path().toString(),
                tensor.offset(),
                tensor.type(),
                rows == 0 ? null : order.of(rows),
                order instanceof RowOrder.Transposed && rows > 0);
    }
}
