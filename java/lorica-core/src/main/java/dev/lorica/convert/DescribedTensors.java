package dev.lorica.convert;

import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.internal.NativeGgufWriter;
import dev.lorica.internal.TensorTable;
import java.util.ArrayList;
import java.util.List;

/**
 * The tensors of a folder, as the engine's description of the architecture lists them for the metadata that the layout has so far,
 * and what a family has otherwise.
 */
final class DescribedTensors {
    private final Layout layout;
    private final List<String> present = new ArrayList<>(List.of("token_embd.weight"));
    private String as;
    private float addedToNorms;
    private boolean cutsEmbedding;
    private boolean tied;

    DescribedTensors(Layout layout) {
        this.layout = layout;
        this.as = layout.architecture();
    }

    /** The description of another architecture, which has the same tensors. */
    DescribedTensors as(String architecture) {
        as = architecture;
        return this;
    }

    /** Tensors of a block that only some models of the architecture have, and this one has: {@code attn_q.bias}. */
    DescribedTensors present(String... names) {
        for (String name : names) {
            present.add("blk.0." + name);
        }
        return this;
    }

    /** Gemma's norms multiply by 1 + w. */
    DescribedTensors addedToNorms(float value) {
        addedToNorms = value;
        return this;
    }

    /** The embedding may have rows without a token behind the others. */
    DescribedTensors cutsEmbedding() {
        cutsEmbedding = true;
        return this;
    }

    DescribedTensors head(HuggingFaceConfig config, boolean tiedByDefault) {
        tied = config.flag("tie_word_embeddings", tiedByDefault);
        return this;
    }

    /** Holds them against the files, and has them written. */
    void write() {
        for (TensorTable.Tensor tensor : table()) {
            String hf = layout.inFolder(tensor.hfName());
            if (tensor.optional() && tied) {
                layout.ignore(hf::equals);
                continue;
            }
            boolean cut = cutsEmbedding && tensor.kind() == TensorTable.Kind.EMBEDDING;
            float added = tensor.kind() == TensorTable.Kind.NORM ? addedToNorms : 0;
            int rows = Math.toIntExact(tensor.rows());
            int columns = Math.toIntExact(tensor.columns());
            layout.plainTensor(
                    tensor.name(),
                    hf,
                    new ModelTensor.Reading(tensor.order(), tensor.transposed(), cut ? 0 : -1, added),
                    isVector(tensor) ? new int[] {rows} : new int[] {rows, columns});
        }
    }

    private static boolean isVector(TensorTable.Tensor tensor) {
        return tensor.kind() == TensorTable.Kind.NORM || tensor.kind() == TensorTable.Kind.BIAS;
    }

    private List<TensorTable.Tensor> table() {
        try (NativeGgufWriter metadata = new NativeGgufWriter()) {
            metadata.set("general.architecture", as);
            metadata.set("lorica.tensors", present);
            String own = layout.architecture() + ".";
            layout.metadata().forEach((key, value) -> {
                if (key.startsWith(own)) {
                    metadata.set(as + "." + key.substring(own.length()), value);
                }
            });
            return TensorTable.of(metadata);
        } catch (UnsupportedException e) {
            throw new UnsupportedException(layout.inWords(e), e);
        } catch (FileFormatException e) {
            throw new FileFormatException(layout.inWords(e), e);
        }
    }
}
