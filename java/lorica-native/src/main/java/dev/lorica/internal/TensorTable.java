package dev.lorica.internal;

import static dev.lorica.internal.Status.check;

import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_architecture;
import dev.lorica.internal.c.lorica_architecture_tensor;
import java.util.ArrayList;
import java.util.List;
import org.bytedeco.javacpp.LongPointer;

/** The tensors of a model as its description has them: names in both worlds, shapes, orders of rows. The one table of this kind. */
public final class TensorTable {
    private TensorTable() {}

    public enum Kind {
        EMBEDDING(Lorica.LORICA_TENSOR_EMBEDDING),
        /** What adapters may sit on. */
        LINEAR(Lorica.LORICA_TENSOR_LINEAR),
        NORM(Lorica.LORICA_TENSOR_NORM),
        BIAS(Lorica.LORICA_TENSOR_BIAS),
        HEAD(Lorica.LORICA_TENSOR_HEAD),
        /** Behind the others, and only in files of classifiers. */
        CLASSIFIER(Lorica.LORICA_TENSOR_CLASSIFIER);

        private final int code;

        Kind(int code) {
            this.code = code;
        }
    }

    /**
     * One tensor.
     *
     * @param layer      −1: of none
     * @param name       in GGUF files, {@code blk.0.attn_q.weight}
     * @param hfName     in Hugging Face's, {@code model.layers.0.self_attn.q_proj.weight}
     * @param rows       of a vector its length; 0: as many as the classifier has outputs
     * @param columns    of a vector 1
     * @param transposed Hugging Face stores it [columns, rows]
     * @param optional   may be missing: the embedding stands in for the head, or it is no classifier
     */
    public record Tensor(
            Kind kind,
            int layer,
            String name,
            String hfName,
            long rows,
            long columns,
            RowOrder order,
            boolean transposed,
            boolean optional) {

        public boolean isVector() {
            return kind == Kind.NORM || kind == Kind.BIAS || kind == Kind.CLASSIFIER && columns == 1;
        }

        /** As Hugging Face stores it. */
        public List<Long> hfShape() {
            return isVector() ? List.of(rows) : transposed ? List.of(columns, rows) : List.of(rows, columns);
        }

        /** @param addedToNorms what the GGUF file has beyond the weight of a norm: Gemma's 1 */
        public float[] toHuggingFace(float[] values, float addedToNorms) {
            float[] ordered = order.toHuggingFace(values);
            if (kind == Kind.NORM) {
                return plus(ordered, -addedToNorms);
            }
            return transposed ? transposed(ordered, rows, columns) : ordered;
        }

        public float[] toGguf(float[] values, float addedToNorms) {
            if (kind == Kind.NORM) {
                return order.toGguf(plus(values, addedToNorms));
            }
            return order.toGguf(transposed ? transposed(values, columns, rows) : values);
        }

        private static float[] plus(float[] values, float added) {
            float[] sums = values.clone();
            for (int i = 0; i < sums.length; i++) {
                sums[i] += added;
            }
            return sums;
        }

        private static float[] transposed(float[] values, long rows, long columns) {
            float[] other = new float[values.length];
            for (int i = 0; i < values.length; i++) {
                other[(int) (i % columns * rows + i / columns)] = values[i];
            }
            return other;
        }
    }

    /** In the order of the computation. */
    public static List<Tensor> of(NativeModel model) {
        lorica_architecture pointer = new lorica_architecture();
        check(model.handle.shared(m -> Lorica.lorica_architecture_of_model(m, pointer)));
        return read(pointer);
    }

    /** Of the model whose metadata the writer holds: the architecture, its numbers, its {@code vocab_size}. */
    public static List<Tensor> of(NativeGgufWriter metadata) {
        lorica_architecture pointer = new lorica_architecture();
        check(metadata.handle.exclusive(w -> Lorica.lorica_architecture_of_metadata(w, pointer)));
        return read(pointer);
    }

    private static List<Tensor> read(lorica_architecture pointer) {
        List<Tensor> tensors = new ArrayList<>();
        try (lorica_architecture_tensor t =
                Structs.sized(lorica_architecture_tensor::new, lorica_architecture_tensor::struct_size)) {
            for (int i = 0; i < Lorica.lorica_architecture_n_tensors(pointer); i++) {
                check(Lorica.lorica_architecture_get_tensor(pointer, i, t));
                tensors.add(new Tensor(
                        kind(t.kind()),
                        t.layer(),
                        Text.of(t.name()),
                        Text.of(t.hf_name()),
                        t.rows(),
                        t.cols(),
                        order(t),
                        t.conv1d(),
                        t.is_optional()));
            }
        } finally {
            Lorica.lorica_architecture_free(pointer);
        }
        return tensors;
    }

    private static Kind kind(int code) {
        for (Kind kind : Kind.values()) {
            if (kind.code == code) {
                return kind;
            }
        }
        throw new IllegalStateException("tensor kind " + code);
    }

    private static RowOrder order(lorica_architecture_tensor t) {
        LongPointer order = t.row_order();
        if (order == null || order.isNull()) {
            return RowOrder.SAME;
        }
        long[] rows = new long[Math.toIntExact(t.rows())];
        order.get(rows);
        return new RowOrder(rows);
    }
}
