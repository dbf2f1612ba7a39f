package dev.lorica.convert;

import dev.lorica.exceptions.FileFormatException;
import dev.lorica.files.SafetensorsFile;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Predicate;

/**
 * What a family says of a model: the architecture's name, its metadata, and its tensors, each held against the file as soon as it is
 * named. Whatever is sized by a number of {@code config.json} comes after a tensor that has this size.
 */
final class Layout {
    private final Path folder;
    private final Map<String, SafetensorsFile> fileOf;
    private final Set<String> unused;
    private final List<ModelTensor> tensors = new ArrayList<>();
    private final Map<String, float[]> vectors = new LinkedHashMap<>();
    private final Map<String, Object> metadata = new LinkedHashMap<>();
    private String architecture;
    private String described = "";
    private String root = "";
    /** Rows of the embedding that are taken; the others have no token. 0: all. */
    private int vocabulary;

    Layout(Path folder, Map<String, SafetensorsFile> fileOf) {
        this.folder = folder;
        this.fileOf = fileOf;
        this.unused = new LinkedHashSet<>(fileOf.keySet());
    }

    // ---- what families say

    Layout architecture(String name) {
        architecture = name;
        return this;
    }

    /** Metadata under the architecture's name: a whole number, a number, a text, a truth, or arrays of these. */
    Layout set(String key, Object value) {
        metadata.put(architecture + "." + key, value);
        return this;
    }

    /** Metadata under its own name. */
    Layout setPlain(String key, Object value) {
        metadata.put(key, value);
        return this;
    }

    /** Names of the base model, which begin with the first of these in a description, begin with the first under which `marker` is there. */
    Layout root(String marker, String... candidates) {
        described = candidates[0];
        root = candidates[0];
        for (String candidate : candidates) {
            if (fileOf.containsKey(candidate + marker)) {
                root = candidate;
                return this;
            }
        }
        return this;
    }

    boolean has(String hf) {
        return fileOf.containsKey(hf);
    }

    /** What a name of a description is called in this folder. */
    String inFolder(String hf) {
        if (hf.startsWith(described)) {
            return root + hf.substring(described.length());
        }
        // the head of a model that sees pictures too
        return !fileOf.containsKey(hf) && fileOf.containsKey("language_model." + hf) ? "language_model." + hf : hf;
    }

    /** A tensor under its name in the folder. */
    void tensor(String gguf, String hf, ModelTensor.Reading reading, int... shape) {
        SafetensorsFile file = fileOf.get(hf);
        if (file == null) {
            throw new FileFormatException(folder + ": tensor \"" + hf + "\" is missing");
        }
        SafetensorsFile.Tensor tensor = file.tensors().get(hf);
        ModelTensor plan = new ModelTensor(gguf, file, tensor, reading, shape);
        if (!plan.fits()) {
            throw new FileFormatException(file.path() + ": tensor \"" + hf + "\" has the shape " + tensor.shape()
                    + "; config.json asks for " + plan.expected());
        }
        unused.remove(hf);
        tensors.add(plan);
    }

    /** Values that no tensor of the file has. */
    void vector(String gguf, float[] values) {
        vectors.put(gguf, values);
    }

    void vocabulary(int rows) {
        vocabulary = rows;
    }

    /** Tensors without meaning for the model. */
    void ignore(Predicate<String> names) {
        unused.removeIf(names);
    }

    /** What the engine says of the numbers, as a fault of the folder's. */
    String inWords(RuntimeException e) {
        return folder + ": " + e.getMessage().replaceFirst("^the metadata: ", "");
    }

    // ---- what is made of it

    String architecture() {
        return architecture;
    }

    int vocabulary() {
        return vocabulary;
    }

    Map<String, Object> metadata() {
        return metadata;
    }

    List<ModelTensor> tensors() {
        return tensors;
    }

    Map<String, float[]> vectors() {
        return vectors;
    }

    Set<String> unused() {
        return unused;
    }
}
