package dev.lorica.convert;

import com.fasterxml.jackson.databind.JsonNode;
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
    private String tokenizer;
    private int firstPosition;
    private int classes;

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

    /** Tensors of no block, likewise: {@code token_types.weight}. */
    DescribedTensors presentInModel(String... names) {
        present.addAll(List.of(names));
        return this;
    }

    /** GGUF's name of the tokenizer, where it tells one family from another. */
    DescribedTensors tokenizer(String name) {
        tokenizer = name;
        return this;
    }

    /** Rows of the positions before the first that a token can have, which are left out. */
    DescribedTensors firstPosition(int row) {
        firstPosition = row;
        return this;
    }

    /** Whether the folder has the outputs of a classifier, whatever it has before them. */
    private boolean classifies() {
        return table().stream()
                .anyMatch(tensor -> tensor.kind() == TensorTable.Kind.CLASSIFIER
                        && tensor.rows() == 0
                        && layout.has(inFolder(tensor)));
    }

    /** What the outputs of a classifier are called, and what they are for, where the folder has one. */
    DescribedTensors classes(HuggingFaceConfig config) {
        if (!classifies()) {
            return this;
        }
        JsonNode labels = config.json().path("id2label");
        classes = labels.isObject() ? labels.size() : config.positive("num_labels", 2);
        String problem = config.json().path("problem_type").asText("");
        if (config.json().hasNonNull("problem_type")) {
            layout.setPlain("lorica.classifier.problem", problem);
        }
        if (!problem.equals("regression")) {
            List<String> names = new ArrayList<>();
            for (int i = 0; i < classes; i++) {
                names.add(labels.path(Integer.toString(i)).asText("LABEL_" + i));
            }
            layout.set("classifier.output_labels", names);
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

    /** A decoder that says classes has no head for words, in whose place the embedding is put. */
    DescribedTensors head(HuggingFaceConfig config, boolean tiedByDefault) {
        tied = config.flag("tie_word_embeddings", tiedByDefault) || classifies();
        return classes(config);
    }

    /** Holds them against the files, and has them written. */
    void write() {
        for (TensorTable.Tensor tensor : table()) {
            String hf = inFolder(tensor);
            if (tensor.kind() == TensorTable.Kind.HEAD && tensor.optional() && tied) {
                layout.ignore(hf::equals);
                continue;
            }
            if (tensor.kind() == TensorTable.Kind.CLASSIFIER && !layout.has(hf.replaceFirst("\\.bias$", ".weight"))) {
                continue;
            }
            float added = tensor.kind() == TensorTable.Kind.NORM ? addedToNorms : 0;
            int rows = tensor.rows() == 0 ? classes : Math.toIntExact(tensor.rows());
            int columns = Math.toIntExact(tensor.columns());
            layout.tensor(
                    tensor.name(),
                    hf,
                    new ModelTensor.Reading(tensor.order(), tensor.transposed(), firstRow(tensor), added),
                    tensor.isVector() ? new int[] {rows} : new int[] {rows, columns});
        }
    }

    private int firstRow(TensorTable.Tensor tensor) {
        if (tensor.name().equals("position_embd.weight") && firstPosition > 0) {
            return firstPosition;
        }
        return cutsEmbedding && tensor.kind() == TensorTable.Kind.EMBEDDING ? 0 : -1;
    }

    private String inFolder(TensorTable.Tensor tensor) {
        String name = layout.inFolder(tensor.hfName());
        // The first BERTs came from TensorFlow, with its names.
        String old = name.replaceFirst("LayerNorm\\.weight$", "LayerNorm.gamma")
                .replaceFirst("LayerNorm\\.bias$", "LayerNorm.beta");
        return !layout.has(name) && layout.has(old) ? old : name;
    }

    private List<TensorTable.Tensor> table() {
        try (NativeGgufWriter metadata = new NativeGgufWriter()) {
            metadata.set("general.architecture", as);
            metadata.set("lorica.tensors", present);
            if (tokenizer != null) {
                metadata.set("tokenizer.ggml.model", tokenizer);
            }
            String own = layout.architecture() + ".";
            layout.metadata()
                    .forEach((key, value) ->
                            metadata.set(key.startsWith(own) ? as + "." + key.substring(own.length()) : key, value));
            return TensorTable.of(metadata);
        } catch (UnsupportedException e) {
            throw new UnsupportedException(layout.inWords(e), e);
        } catch (FileFormatException e) {
            throw new FileFormatException(layout.inWords(e), e);
        }
    }
}
