#!/usr/bin/env python3
"""Writes the model goldens of native/tests/data/model_goldens: what transformers and PEFT compute on small Llamas.

    pip install torch==2.13.0 transformers==5.18.0 peft==0.21.0 gguf==0.19.0     # Python 3.11
    scripts/make_model_goldens.py

Each case is a folder of three GGUF files, 1.5 MB in all:

    model.gguf    random weights; rows of q and k in the order in which llama.cpp's converter stores them
    adapter.gguf  a LoRA in llama.cpp's layout, or lorica's DoRA; A, B and the magnitudes are random, so that every gradient
                  is there to be seen
    golden.gguf   no model: a container of arrays (see `golden` below) and of the settings of the training

PyTorch computes in f32 on the values that the blocks of model.gguf stand for. Each sequence goes through the model
alone, and the labels go in as the Trainer gives them: unshifted, with the number of trained tokens of the whole batch.

The script also trains with wrong optimizers (no weight decay, no clipping, ...) and stops if one of them has golden
losses in every case: the C++ test then could not tell it from AdamW.
"""
import argparse
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY / "native/tests/data/model_goldens"

N_STEPS = 20
TOLERANCE = 5e-5  # of the losses in the C++ test
# Three special tokens, the bytes, one word.
TOKENS = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + ["\u2581word"]
TOKEN_TYPES = ([gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.BYTE] * 256
               + [gguf.TokenType.NORMAL])


@dataclass
class Sequence:
    length: int
    trained_from: int = 1  # positions before it have the label -100
    positions: list[int] | None = None  # None: 0, 1, 2, ...


@dataclass
class Case:
    name: str
    seed: int
    type: Type
    embedding_type: Type
    batches: list[list[Sequence]]  # training takes them in turn; everything else looks at the first
    rank: int
    alpha: float
    target_modules: str | list[str]
    use_rslora: bool = False
    use_dora: bool = False
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 16
    n_ff: int = 96
    tied: bool = False
    rope_theta: float = 10000.0
    rope_scaling: dict = field(default_factory=lambda: {"rope_type": "default"})
    rms_eps: float = 1e-5
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    n_embd: int = 64
    n_layer: int = 2


def after_a_gap(start, length, gap_at, gap):
    """RoPE sees differences only, so moving a whole sequence changes nothing. A gap inside it does."""
    return [start + i + (gap if i >= gap_at else 0) for i in range(length)]


CASES = [
    Case("grouped_heads_f32", 1, Type.F32, Type.F32, rank=8, alpha=16, target_modules="all-linear",
         batches=[[Sequence(11, positions=after_a_gap(3, 11, 6, 40)), Sequence(7, trained_from=3)], [Sequence(16)]]),
    Case("tied_output_q4_0", 2, Type.Q4_0, Type.Q8_0, rank=4, alpha=8, target_modules=["q_proj", "v_proj"],
         tied=True, n_ff=160, rms_eps=1e-6, learning_rate=1e-2, weight_decay=0.1,
         batches=[[Sequence(9), Sequence(12, trained_from=8)], [Sequence(5), Sequence(10)]]),
    # The wavelengths 2 pi theta^(i / 12) lie on all three sides of the limits 96 / 1 and 96 / 4.
    Case("llama3_rope_f16", 3, Type.F16, Type.F16, rank=6, alpha=9, target_modules="all-linear", use_rslora=True,
         head_dim=24, rope_theta=500000.0,
         rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                       "original_max_position_embeddings": 96},
         learning_rate=3e-3, weight_decay=0.1, max_grad_norm=0.5,
         batches=[[Sequence(20, trained_from=4)], [Sequence(6), Sequence(14, positions=after_a_gap(0, 14, 9, 100))]]),
    Case("one_kv_head_bf16", 4, Type.BF16, Type.BF16, rank=4, alpha=32,
         target_modules=["k_proj", "o_proj", "down_proj"], tied=True, n_head=2, n_head_kv=1, head_dim=32,
         learning_rate=5e-3, weight_decay=0.5, max_grad_norm=0.3,
         batches=[[Sequence(8), Sequence(1), Sequence(10, trained_from=5)], [Sequence(13)]]),
    Case("dora_q4_0", 5, Type.Q4_0, Type.Q8_0, rank=4, alpha=8, target_modules="all-linear", use_dora=True, n_layer=1,
         tied=True, learning_rate=5e-3, weight_decay=0.1,
         batches=[[Sequence(11, trained_from=2), Sequence(7)], [Sequence(9)]]),
]

MODULES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
           "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
           "mlp.down_proj": "ffn_down"}


def ggml_name(name):
    """model.layers.0.self_attn.q_proj.weight -> blk.0.attn_q.weight"""
    parts = name.split(".")
    if parts[:2] != ["model", "layers"]:
        return {"model.embed_tokens": "token_embd", "model.norm": "output_norm",
                "lm_head": "output"}[".".join(parts[:-1])] + ".weight"
    module = ".".join(parts[3:-1])
    norms = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    return f"blk.{parts[2]}.{norms.get(module) or MODULES[module]}.weight"


def in_ggml_order(case, name, rows):
    """Hugging Face rotates element i of a head with element i + d/2, GGUF stores the two next to each other."""
    n_head = case.n_head if ".attn_q." in name else case.n_head_kv if ".attn_k." in name else None
    if n_head is None:
        return rows
    halves = rows.reshape(n_head, 2, case.head_dim // 2, -1)
    return np.ascontiguousarray(halves.transpose(0, 2, 1, 3).reshape(rows.shape))


# ---- the model and the adapter ----


def make_model(case, folder):
    """Writes model.gguf and returns the same model in transformers."""
    config = LlamaConfig(
        vocab_size=len(TOKENS), hidden_size=case.n_embd, intermediate_size=case.n_ff, num_hidden_layers=case.n_layer,
        num_attention_heads=case.n_head, num_key_value_heads=case.n_head_kv, head_dim=case.head_dim,
        max_position_embeddings=512, rms_norm_eps=case.rms_eps, tie_word_embeddings=case.tied,
        rope_parameters={"rope_theta": case.rope_theta, **case.rope_scaling}, attn_implementation="eager")
    model = LlamaForCausalLM(config).eval()

    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_name(case.name)
    writer.add_block_count(case.n_layer)
    writer.add_context_length(512)
    writer.add_embedding_length(case.n_embd)
    writer.add_feed_forward_length(case.n_ff)
    writer.add_head_count(case.n_head)
    writer.add_head_count_kv(case.n_head_kv)
    writer.add_key_length(case.head_dim)
    writer.add_value_length(case.head_dim)
    writer.add_layer_norm_rms_eps(case.rms_eps)
    writer.add_rope_dimension_count(case.head_dim)
    writer.add_rope_freq_base(case.rope_theta)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * len(TOKENS))
    writer.add_token_types(TOKEN_TYPES)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    rng = np.random.default_rng(case.seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # a tied head is not among them
            if parameter.dim() == 1:
                values = (1 + 0.1 * rng.standard_normal(parameter.shape)).astype(np.float32)
                writer.add_tensor(ggml_name(name), values)
            else:
                # Outputs as large as inputs: attention is neither uniform nor one-hot.
                values = (rng.standard_normal(parameter.shape) / np.sqrt(parameter.shape[1])).astype(np.float32)
                tensor_type = case.embedding_type if "embed_tokens" in name or "lm_head" in name else case.type
                # Blocks lie within rows, so reordering rows commutes with quantization.
                blocks = gguf.quants.quantize(values, tensor_type)
                values = gguf.quants.dequantize(blocks, tensor_type)
                stored = gguf.quants.quantize(in_ggml_order(case, ggml_name(name), values), tensor_type)
                assert np.array_equal(gguf.quants.dequantize(stored, tensor_type),
                                      in_ggml_order(case, ggml_name(name), values)), name
                writer.add_tensor(ggml_name(name), stored, raw_dtype=tensor_type)
            parameter.copy_(torch.from_numpy(values))
    if case.rope_scaling["rope_type"] == "llama3":
        # The divisors of the plain frequencies, as transformers computes them.
        plain = case.rope_theta ** (-np.arange(0, case.head_dim, 2) / case.head_dim)
        factors = plain / model.model.rotary_emb.inv_freq.double().numpy()
        assert factors.min() < 1.01 and factors.max() > 7.9 and ((factors > 1.1) & (factors < 7.9)).any(), factors
        writer.add_tensor("rope_freqs.weight", factors.astype(np.float32))
    write(writer)
    return model


def make_adapter(case, model, folder):
    """Writes adapter.gguf and returns the model with the same adapter in PEFT, and its parameters by GGUF name."""
    model = get_peft_model(model, LoraConfig(
        r=case.rank, lora_alpha=case.alpha, target_modules=case.target_modules, use_rslora=case.use_rslora,
        use_dora=case.use_dora, task_type="CAUSAL_LM"))
    writer = gguf.GGUFWriter(folder / "adapter.gguf", "llama")
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "dora" if case.use_dora else "lora")
    # The program that loads it scales by alpha / r; rsLoRA means alpha / sqrt(r).
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, case.alpha * (np.sqrt(case.rank) if case.use_rslora else 1))

    rng = np.random.default_rng(100 + case.seed)
    parameters = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            base, half = name.removeprefix("base_model.model.").removesuffix(".default.weight").rsplit(".", 1)
            if half == "lora_magnitude_vector":
                # About as PEFT starts it, the norms of W's rows.
                values = parameter.numpy() * (1 + 0.1 * rng.standard_normal(parameter.shape)).astype(np.float32)
            else:
                # A as PEFT starts it, B a fifth of that size.
                size = {"lora_A": 1.0, "lora_B": 0.2}[half] / np.sqrt(3 * parameter.shape[1])
                values = (size * rng.standard_normal(parameter.shape)).astype(np.float32)
            parameter.copy_(torch.from_numpy(values))
            full_name = f"{ggml_name(base + '.weight')}.{half.lower()}"
            parameters[full_name] = parameter
            writer.add_tensor(full_name, in_lora_order(case, full_name, values))
    write(writer)
    return model, parameters


def in_lora_order(case, name, values):
    return values if name.endswith("lora_a") else in_ggml_order(case, name, values)


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ---- what is computed with them ----


@dataclass
class Batch:
    tokens: list[np.ndarray]
    labels: list[np.ndarray]  # as the Trainer gives them: not shifted
    positions: list[np.ndarray]
    has_positions: bool

    def n_trained(self):
        return sum(int((labels[1:] != -100).sum()) for labels in self.labels)


def make_batch(sequences, rng):
    tokens = [rng.integers(0, len(TOKENS), s.length).astype(np.int32) for s in sequences]
    labels = [np.where(np.arange(len(t)) < s.trained_from, -100, t).astype(np.int32) for s, t in zip(sequences, tokens)]
    positions = [np.array(range(s.length) if s.positions is None else s.positions, dtype=np.int32) for s in sequences]
    return Batch(tokens, labels, positions, any(s.positions is not None for s in sequences))


def shifted(labels):
    """What each position is to predict, as lorica_batch wants it."""
    return np.append(labels[1:], -100).astype(np.int32)


def run(model, tokens, positions=None, **arguments):
    ids = torch.from_numpy(tokens).long()[None]
    if positions is not None:
        arguments["position_ids"] = torch.from_numpy(positions).long()[None]
    # Without a mask transformers takes a gap in the positions for the start of another sequence.
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **arguments)


def mean_loss(model, batch):
    """The mean over the trained tokens of all sequences; each goes through the model by itself."""
    losses = []
    for tokens, labels, positions in zip(batch.tokens, batch.labels, batch.positions):
        if (labels[1:] != -100).any():
            output = run(model, tokens, positions, labels=torch.from_numpy(labels).long()[None],
                         num_items_in_batch=batch.n_trained())
            losses.append(output.loss)
    return sum(losses)


def train(model, parameters, batches, make_optimizer, max_grad_norm):
    """Losses before each step and gradient norms before clipping. Leaves the parameters as they were."""
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer = make_optimizer(list(parameters.values()))
    losses, norms = [], []
    for step in range(N_STEPS):
        optimizer.zero_grad()
        loss = mean_loss(model, batches[step % len(batches)])
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), max_grad_norm or float("inf")).item())
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(start[name])
            parameter.grad = None
    return np.array(losses), np.array(norms)


def trajectory(case, model, parameters, batches):
    def adamw(**changes):
        settings = {"lr": case.learning_rate, "weight_decay": case.weight_decay, "betas": (0.9, 0.999), "eps": 1e-8}
        return lambda tensors: torch.optim.AdamW(tensors, **{**settings, **changes})

    losses, norms = train(model, parameters, batches, adamw(), case.max_grad_norm)
    wrong = {
        "no weight decay": (adamw(weight_decay=0), case.max_grad_norm),
        "weight decay in the gradient": (lambda tensors: torch.optim.Adam(
            tensors, lr=case.learning_rate, weight_decay=case.weight_decay), case.max_grad_norm),
        "no clipping": (adamw(), None),
        "beta2 0.99": (adamw(betas=(0.9, 0.99)), case.max_grad_norm),
        "beta1 0.8": (adamw(betas=(0.8, 0.999)), case.max_grad_norm),
    }
    told_apart = set()
    for what, (make_optimizer, max_grad_norm) in wrong.items():
        other, _ = train(model, parameters, batches, make_optimizer, max_grad_norm)
        difference = np.max(np.abs(other - losses) / losses)
        print(f"  {what}: losses differ by {difference:.1e}")
        if difference > 10 * TOLERANCE:
            told_apart.add(what)
    print(f"  losses {losses[0]:.4f} {losses[1]:.4f} ... {losses[-2]:.4f} {losses[-1]:.4f}, "
          f"gradient norms {norms.min():.3f} to {norms.max():.3f}")
    return losses, norms, told_apart, set(wrong)


def golden(case, folder):
    model, parameters = make_adapter(case, make_model(case, folder), folder)
    rng = np.random.default_rng(200 + case.seed)
    batches = [make_batch(sequences, rng) for sequences in case.batches]
    first = batches[0]

    writer = gguf.GGUFWriter(folder / "golden.gguf", "lorica-golden")
    writer.add_float32("learning_rate", case.learning_rate)
    writer.add_float32("weight_decay", case.weight_decay)
    writer.add_float32("max_grad_norm", case.max_grad_norm)
    writer.add_uint32("n_batches", len(batches))
    for i, batch in enumerate(batches):
        writer.add_tensor(f"batch.{i}.tokens", np.concatenate(batch.tokens))
        writer.add_tensor(f"batch.{i}.labels", np.concatenate([shifted(labels) for labels in batch.labels]))
        if batch.has_positions:
            writer.add_tensor(f"batch.{i}.positions", np.concatenate(batch.positions))
        writer.add_tensor(f"batch.{i}.sequence_lengths", np.array([len(x) for x in batch.tokens], dtype=np.int32))

    # Logits at positions 0, 1, 2, ... [T, V], and those of the base at the last token of each sequence [sequences, V].
    with torch.no_grad():
        logits = [run(model, tokens).logits[0] for tokens in first.tokens]
        writer.add_tensor("logits", torch.cat(logits).numpy())
        with model.disable_adapter():
            writer.add_tensor("base_logits", torch.stack([run(model, x).logits[0, -1] for x in first.tokens]).numpy())

        # -log p(label) of each position, 0 where it is not trained [T]
        nll = [torch.nn.functional.cross_entropy(run(model, tokens, positions).logits[0],
                                                 torch.from_numpy(shifted(labels)).long(), reduction="none")
               for tokens, labels, positions in zip(first.tokens, first.labels, first.positions)]
        writer.add_tensor("token_nll", torch.cat(nll).numpy())

    # Gradients of the mean loss, shaped as the tensors in adapter.gguf.
    loss = mean_loss(model, first)
    loss.backward()
    writer.add_float64("loss", loss.item())
    for name, parameter in parameters.items():
        gradient = in_lora_order(case, name, parameter.grad.numpy())
        assert np.abs(gradient).max() > 0, name
        writer.add_tensor(f"gradient.{name}", gradient)
        parameter.grad = None

    losses, norms, told_apart, wrong = trajectory(case, model, parameters, batches)
    writer.add_tensor("losses", losses)
    writer.add_tensor("grad_norms", norms)
    write(writer)
    return told_apart, wrong


def main():
    parser = argparse.ArgumentParser(description="Writes the model goldens.")
    parser.add_argument("--output", type=Path, default=DATA)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    told_apart, wrong = set(), set()  # names of wrong optimizers
    for case in CASES:
        folder = arguments.output / case.name
        folder.mkdir(parents=True, exist_ok=True)
        print(case.name)
        for target, found in zip((told_apart, wrong), golden(case, folder)):
            target |= found
    if told_apart != wrong:
        raise SystemExit(f"no case tells these from AdamW: {', '.join(sorted(wrong - told_apart))}")


if __name__ == "__main__":
    main()
