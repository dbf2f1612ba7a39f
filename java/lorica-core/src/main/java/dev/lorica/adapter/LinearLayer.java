package dev.lorica.adapter;

import dev.lorica.ModelInfo;

/** A linear layer of a block: {@code model.layers.0.self_attn.q_proj} for Hugging Face, {@code blk.0.attn_q} for GGUF. */
record LinearLayer(int index, Module module) {

    enum Module {
        Q("self_attn.q_proj", "attn_q"),
        K("self_attn.k_proj", "attn_k"),
        V("self_attn.v_proj", "attn_v"),
        O("self_attn.o_proj", "attn_output"),
        GATE("mlp.gate_proj", "ffn_gate"),
        UP("mlp.up_proj", "ffn_up"),
        DOWN("mlp.down_proj", "ffn_down");

        private final String peft;
        private final String gguf;

        Module(String peft, String gguf) {
            this.peft = peft;
            this.gguf = gguf;
        }

        String shortName() {
            return peft.substring(peft.indexOf('.') + 1);
        }

        /** Whether {@code name} is one of its names without a layer: {@code q_proj}, {@code attn_q}. */
        boolean isNamed(String name) {
            return name.equals(shortName()) || name.equals(gguf);
        }

        /** Heads whose rows RoPE rotates, 0 where it does not. */
        int ropeHeads(ModelInfo model) {
            return this == Q ? model.heads() : this == K ? model.kvHeads() : 0;
        }
    }

    String peft() {
        return "model.layers." + index + "." + module.peft;
    }

    String gguf() {
        return "blk." + index + "." + module.gguf;
    }

    /** Of a tensor of the base or of an adapter: {@code blk.0.attn_q.weight.lora_a}. */
    static LinearLayer ofTensor(String name) {
        String[] parts = name.split("\\.");
        for (Module module : Module.values()) {
            if (module.gguf.equals(parts[2])) {
                return new LinearLayer(Integer.parseInt(parts[1]), module);
            }
        }
        throw new IllegalStateException(name);
    }
}
