package dev.lorica.adapter;

import dev.lorica.Model;
import dev.lorica.internal.Inner;
import dev.lorica.internal.RowOrder;
import dev.lorica.internal.TensorTable;
import java.util.ArrayList;
import java.util.List;

/**
 * A linear layer of a block, as the model's description has it, or the output head.
 *
 * @param index      of the block; −1: the head
 * @param gguf       {@code blk.0.attn_q}
 * @param peft       what Hugging Face calls it, {@code model.layers.0.self_attn.q_proj}
 * @param order      of its rows, which B's and the magnitudes follow
 * @param transposed Hugging Face stores its weight [in, out], as PEFT's {@code fan_in_fan_out} says
 */
record LinearLayer(int index, String gguf, String peft, RowOrder order, boolean transposed) {
    private static final String WEIGHT = ".weight";
    private static final List<String> DEFAULTS = List.of("attn_q", "attn_v", "attn_qkv");

    /** All of the model, in the order of the computation, the head as the last. */
    static List<LinearLayer> of(Model model) {
        List<LinearLayer> layers = new ArrayList<>();
        for (TensorTable.Tensor tensor : TensorTable.of(Inner.MODEL.of(model))) {
            boolean inBlock = tensor.kind() == TensorTable.Kind.LINEAR && tensor.layer() >= 0;
            if (inBlock || tensor.kind() == TensorTable.Kind.HEAD) {
                layers.add(new LinearLayer(
                        tensor.layer(),
                        withoutWeight(tensor.name()),
                        withoutWeight(tensor.hfName()),
                        tensor.order(),
                        tensor.transposed()));
            }
        }
        return layers;
    }

    private static String withoutWeight(String name) {
        return name.substring(0, name.length() - WEIGHT.length());
    }

    /** Of a tensor of an adapter: {@code blk.0.attn_q.weight.lora_a}. */
    static LinearLayer ofTensor(List<LinearLayer> layers, String tensor) {
        return layers.stream()
                .filter(layer -> tensor.startsWith(layer.gguf + WEIGHT + "."))
                .findFirst()
                .orElseThrow(() -> new IllegalStateException(tensor));
    }

    boolean isHead() {
        return index < 0;
    }

    /** {@code q_proj}. */
    String shortName() {
        return peft.substring(peft.lastIndexOf('.') + 1);
    }

    /** Whether {@code name} is one of its names without a block: {@code q_proj}, {@code attn_q}. */
    boolean isNamed(String name) {
        return name.equals(shortName()) || name.equals(gguf.substring(gguf.lastIndexOf('.') + 1));
    }

    /** Whether PEFT adapts layers of its kind where no target modules are named: q_proj and v_proj, or the layer that is q, k and v in one. */
    boolean isDefault() {
        return DEFAULTS.contains(gguf.substring(gguf.lastIndexOf('.') + 1));
    }

    /** Its name in PEFT within the block and all of its ends, the shortest first: {@code q_proj}, {@code self_attn.q_proj}. */
    List<String> ends() {
        if (isHead()) {
            return List.of(peft);
        }
        String block = "." + index + ".";
        String module = peft.substring(peft.indexOf(block) + block.length());
        List<String> ends = new ArrayList<>();
        for (int dot = module.lastIndexOf('.'); dot >= 0; dot = module.lastIndexOf('.', dot - 1)) {
            ends.add(module.substring(dot + 1));
        }
        ends.add(module);
        return ends;
    }
}
