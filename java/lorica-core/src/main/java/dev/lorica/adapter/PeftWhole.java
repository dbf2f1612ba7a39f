package dev.lorica.adapter;

import dev.lorica.Model;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.files.SafetensorsWriter;
import dev.lorica.internal.Inner;
import dev.lorica.internal.TensorTable;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * What PEFT trains whole beside a LoRA, and under which keys it stores it: {@code modules_to_save}, {@code base_model.model.lm_head.weight},
 * and biases, which lie in the {@code base_layer} of a module that has a LoRA.
 */
final class PeftWhole {
    private static final String WEIGHT = ".weight";
    private static final String BIAS = ".bias";

    /** Gemma's norms multiply by 1 + w, which its GGUF files have added up. */
    private final float addedToNorms;

    private final Map<String, TensorTable.Tensor> table = new LinkedHashMap<>();

    PeftWhole(Model model) {
        TensorTable.of(Inner.MODEL.of(model)).stream()
                .filter(tensor -> tensor.kind() != TensorTable.Kind.CLASSIFIER)
                .forEach(tensor -> table.put(tensor.name(), tensor));
        addedToNorms = addedToNorms(model);
    }

    static float addedToNorms(Model model) {
        return model.info().architecture().matches("gemma[23]?") ? 1 : 0;
    }

    private static String module(String name) {
        return name.substring(0, name.lastIndexOf('.'));
    }

    /** {@code blk.0.attn_q} of each layer with a LoRA. */
    private static Set<String> adapted(List<Adapter.Tensor> tensors) {
        Set<String> adapted = new LinkedHashSet<>();
        tensors.stream()
                .filter(Adapter.Tensor::isA)
                .forEach(tensor -> adapted.add(tensor.name().replaceFirst("\\.weight\\.lora_a$", "")));
        return adapted;
    }

    private String key(String tensor, Set<String> adapted) {
        String hf = table.get(tensor).hfName();
        boolean inBase = tensor.endsWith(BIAS) && adapted.contains(module(tensor));
        return PeftFolder.PREFIX + (inBase ? module(hf) + ".base_layer" + BIAS : hf);
    }

    // ---- writing

    void write(Adapter adapter, int index, SafetensorsWriter weights) {
        List<Adapter.Tensor> tensors = adapter.tensors();
        TensorTable.Tensor tensor = table.get(tensors.get(index).name());
        weights.add(
                key(tensor.name(), adapted(tensors)),
                tensor.hfShape(),
                () -> tensor.toHuggingFace(adapter.values(index), addedToNorms));
    }

    /** Modules of which more than the bias is trained, by their full names: PEFT takes all whose names end so. */
    List<String> modules(List<Adapter.Tensor> tensors) {
        Set<String> modules = new LinkedHashSet<>();
        for (Adapter.Tensor tensor : tensors) {
            if (tensor.isWhole() && tensor.name().endsWith(WEIGHT)) {
                modules.add(module(table.get(tensor.name()).hfName()));
            }
        }
        return List.copyOf(modules);
    }

    LoraConfig.Bias bias(List<Adapter.Tensor> tensors) {
        Set<String> adapted = adapted(tensors);
        Set<String> names = new LinkedHashSet<>();
        tensors.forEach(tensor -> names.add(tensor.name()));
        LoraConfig.Bias bias = LoraConfig.Bias.NONE;
        for (Adapter.Tensor tensor : tensors) {
            if (!tensor.isWhole() || !tensor.name().endsWith(BIAS)) {
                continue;
            }
            String module = module(tensor.name());
            if (names.contains(module + WEIGHT)) {
                continue;
            }
            if (!adapted.contains(module)) {
                return LoraConfig.Bias.ALL;
            }
            bias = LoraConfig.Bias.LORA_ONLY;
        }
        return bias;
    }

    // ---- reading

    /** GGUF's names of the modules that {@code modules_to_save} means; as in PEFT, those whose names end so. */
    List<String> named(List<String> modulesToSave) {
        List<String> modules = new ArrayList<>();
        for (TensorTable.Tensor tensor : table.values()) {
            String hf = module(tensor.hfName());
            if (tensor.name().endsWith(WEIGHT) && modulesToSave.stream().anyMatch(hf::endsWith)) {
                modules.add(module(tensor.name()));
            }
        }
        return modules;
    }

    /** The keys that there must be. */
    Set<String> keys(List<String> modules, LoraConfig.Bias bias, Set<String> adapted) {
        Set<String> keys = new LinkedHashSet<>();
        for (TensorTable.Tensor tensor : table.values()) {
            boolean biasToo = tensor.kind() == TensorTable.Kind.BIAS
                    && (bias == LoraConfig.Bias.ALL
                            || bias == LoraConfig.Bias.LORA_ONLY && adapted.contains(module(tensor.name())));
            if (biasToo || modules.contains(module(tensor.name()))) {
                keys.add(key(tensor.name(), adapted));
            }
        }
        return keys;
    }

    /** The values of a tensor of the adapter, as the adapter has them. */
    float[] read(Adapter.Tensor tensor, List<Adapter.Tensor> all, SafetensorsFile weights) {
        TensorTable.Tensor spec = table.get(tensor.name());
        SafetensorsFile.Tensor stored = weights.tensors().get(key(tensor.name(), adapted(all)));
        if (!stored.shape().equals(spec.hfShape())) {
            throw new MismatchException(weights.path() + ": \"" + stored.name() + "\" has the shape " + stored.shape()
                    + "; this model needs " + spec.hfShape());
        }
        float[] values = weights.read(stored);
        PeftFolder.checkFinite(weights, stored, values);
        return spec.toGguf(values, addedToNorms);
    }
}
