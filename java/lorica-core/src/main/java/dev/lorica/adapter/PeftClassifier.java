package dev.lorica.adapter;

import dev.lorica.Model;
import dev.lorica.data.Labels;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.files.SafetensorsWriter;
import dev.lorica.internal.Inner;
import dev.lorica.internal.TensorTable;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * A classifier in PEFT's files, under the names that its tensors have in transformers' models for sequence classification, which the
 * model's description has: {@code base_model.model.score.weight}.
 */
final class PeftClassifier {
    /** What PEFT names for every task of classification, whether the model has both or not. */
    private static final Set<String> ALWAYS = Set.of("classifier", "score");

    private static final String OUTPUT = "cls.output.weight";

    private final String prefix;
    /** {@code score.weight} of {@code cls.output.weight} */
    private final Map<String, String> hfNames = new LinkedHashMap<>();

    /** @param prefix of PEFT's keys */
    PeftClassifier(Model model, String prefix) {
        this.prefix = prefix;
        for (TensorTable.Tensor tensor : TensorTable.of(Inner.MODEL.of(model))) {
            if (tensor.kind() == TensorTable.Kind.CLASSIFIER) {
                hfNames.put(tensor.name(), tensor.hfName());
            }
        }
    }

    private String key(String tensor) {
        return prefix + hfNames.get(tensor);
    }

    /** transformers' module: a head of several layers is one, {@code classifier}. */
    private static String module(String hfName) {
        return hfName.startsWith("classifier.") ? "classifier" : hfName.substring(0, hfName.lastIndexOf('.'));
    }

    // ---- writing

    void write(Adapter adapter, int index, SafetensorsWriter weights) {
        Adapter.Tensor tensor = adapter.tensors().get(index);
        weights.add(
                key(tensor.name()),
                tensor.isVector() ? List.of(tensor.rows()) : List.of(tensor.rows(), tensor.columns()),
                () -> adapter.values(index));
    }

    /** The modules that an adapter has whole, as {@code modules_to_save} names them. */
    Set<String> modules(Adapter adapter) {
        Set<String> modules = new LinkedHashSet<>();
        for (Adapter.Tensor tensor : adapter.tensors()) {
            if (tensor.isOfClassifier()) {
                modules.add(module(hfNames.get(tensor.name())));
            }
        }
        return modules;
    }

    // ---- reading

    /** Whether a name in {@code modules_to_save} means a part of it. */
    boolean isNamed(String module) {
        return ALWAYS.contains(module)
                || hfNames.values().stream().anyMatch(name -> module(name).equals(module));
    }

    /** Those of its keys that the file has. */
    Set<String> keys(SafetensorsFile weights) {
        Set<String> keys = new LinkedHashSet<>();
        hfNames.values().stream()
                .map(name -> prefix + name)
                .filter(weights.tensors()::containsKey)
                .forEach(keys::add);
        return keys;
    }

    /** Of its outputs, for which PEFT has no names; {@code null} where there is no classifier. */
    Labels labels(SafetensorsFile weights) {
        SafetensorsFile.Tensor out = weights.tensors().get(key(OUTPUT));
        return out == null ? null : Labels.of(Math.toIntExact(out.shape().get(0)), "", List.of());
    }

    void read(Adapter adapter, int index, SafetensorsFile weights) {
        Adapter.Tensor tensor = adapter.tensors().get(index);
        String key = key(tensor.name());
        SafetensorsFile.Tensor stored = weights.tensors().get(key);
        if (stored == null || stored.shape().stream().reduce(1L, (a, b) -> a * b) != tensor.rows() * tensor.columns()) {
            throw new MismatchException(weights.path() + ": \"" + key + "\" "
                    + (stored == null ? "is missing" : "has the shape " + stored.shape()) + "; this model needs ["
                    + tensor.rows() + ", " + tensor.columns() + "]");
        }
        float[] values = weights.read(stored);
        PeftFolder.checkFinite(weights, stored, values);
        adapter.setValues(index, values);
    }
}
