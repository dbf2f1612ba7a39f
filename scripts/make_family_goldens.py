#!/usr/bin/env python3
"""Writes the model goldens of native/tests/data/model_goldens: what transformers and PEFT compute on small models.

    pip install torch==2.13.0 transformers==5.18.0 peft==0.21.0 gguf==0.19.0     # Python 3.11
    scripts/make_family_goldens.py                 # all of them
    scripts/make_family_goldens.py gemma3 olmo3    # some
    scripts/make_family_goldens.py --check         # writes none, and compares those that are there with what it would write

Needs the target `lorica`, built, which says what tensors a model has and what they are called (lorica_tensors.py).

CASES is the one table: a configuration and a class of transformers, and what llama.cpp's GGUF files say of it. The first cases
are Llamas in several types; then comes one or more of each family, with matrices of F16, biases and norms that are not at
their initial values, and sequences longer than the window.

Each case is a folder of three GGUF files:

    model.gguf    random weights in llama.cpp's layout: names and the order of the rows as the engine serves them, Gemma's norms
                  with 1 added, GPT-2's matrices turned. Only keys that llama.cpp's own converter writes, and beyond them
                    llama.attention.sliding_window    of Mistral 7B v0.1, which llama.cpp does not know: a key is seen by a
                                                      query if query - key < window
                    gemma2, gemma3: attention.scale   where query_pre_attn_scalar is not the head's size
                    rope.freq_base of gptneox, rope.freq_base_swa of gemma3
                  rope.scaling.attn_factor multiplies what YaRN gives by itself, 1 + 0.1 ln(factor), or, with
                  yarn_log_multiplier m, (1 + 0.1 ln(factor)) / (1 + 0.1 m ln(factor)); of LongRoPE it is all there is. phi3 has
                  only sequences that take the short factors, phi4_mini (original_context_length 4) only such that take
                  the long ones.
    adapter.gguf  a LoRA (of PiSSA with its frozen half) in llama.cpp's layout, or lorica's DoRA, IA3, BitFit, full, prompt or bottleneck; A, B, magnitudes, factors, norms and biases
                  are random, so that every gradient is there to be seen
    golden.gguf   no model: a container of arrays (see `golden` below) and of the settings of the training

PyTorch computes in f32 on the values that the blocks of model.gguf stand for. Each sequence goes through the model
alone, and the labels go in as the Trainer gives them: unshifted, with the number of trained tokens of the whole batch.

On another processor model.gguf and adapter.gguf are the same byte for byte, golden.gguf within rounding: PyTorch's products add up
in an order that depends on the instructions there are. Between two processors tensors differed by up to 1.3e-6 of their largest
element; --check allows 1e-5.

The script also trains the Llamas with wrong optimizers (no weight decay, no clipping, ...) and stops if one of them has golden
losses in every case: the C++ test then could not tell it from AdamW.
"""
import argparse
import contextlib
import tempfile
from dataclasses import dataclass, field, replace
from math import log, sqrt
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.activations import get_activation

import lorica_tensors

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY / "native/tests/data/model_goldens"

N_STEPS = 20
TOLERANCE = 5e-5  # of the losses in the C++ test
ROUNDING = 1e-5  # between processors, of the largest element of a tensor
# Three special tokens, the bytes, one word.
TOKENS = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + ["\u2581word"]
TOKEN_TYPES = ([gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.BYTE] * 256
               + [gguf.TokenType.NORMAL])


@dataclass
class Sequence:
    length: int
    trained_from: int = 1  # positions before it have the label -100
    positions: list[int] | None = None  # None: 0, 1, 2, ...
    invocation_at: tuple = ()  # of an activated LoRA: where its invocation stands


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
    pissa: bool = False  # A and B begin as PEFT's principal parts of W, and are moved from there
    method: str = "lora"  # or PEFT's IA3, or the biases and norms themselves (bitfit), everything (full), or a prompt (prompt_tuning, p_tuning)
    invocation: tuple | None = None  # tokens of an activated LoRA
    feedforward_modules: list[str] | None = None
    placement: str = "houlsby"  # of a bottleneck
    non_linearity: str = "swish"
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
    n_vocab: int = len(TOKENS)
    arch: str = "llama"
    config: transformers.PreTrainedConfig | None = None  # None: the Llama that the fields above describe
    model_class: type | None = None
    metadata: dict = field(default_factory=dict)  # without the architecture in front

    def __post_init__(self):
        if self.config is None:
            self.config, self.model_class, self.metadata = llama(self)


def llama(case):
    config = LlamaConfig(
        vocab_size=case.n_vocab, hidden_size=case.n_embd, intermediate_size=case.n_ff, num_hidden_layers=case.n_layer,
        num_attention_heads=case.n_head, num_key_value_heads=case.n_head_kv, head_dim=case.head_dim,
        max_position_embeddings=512, rms_norm_eps=case.rms_eps, tie_word_embeddings=case.tied,
        rope_parameters={"rope_theta": case.rope_theta, **case.rope_scaling}, attn_implementation="eager")
    return config, LlamaForCausalLM, {
        "block_count": case.n_layer, "context_length": 512, "embedding_length": case.n_embd,
        "feed_forward_length": case.n_ff, "attention.head_count": case.n_head,
        "attention.head_count_kv": case.n_head_kv, "attention.key_length": case.head_dim,
        "attention.value_length": case.head_dim, "attention.layer_norm_rms_epsilon": case.rms_eps,
        "rope.dimension_count": case.head_dim, "rope.freq_base": case.rope_theta, "vocab_size": case.n_vocab}


def after_a_gap(start, length, gap_at, gap):
    """RoPE sees differences only, so moving a whole sequence changes nothing. A gap inside it does."""
    return [start + i + (gap if i >= gap_at else 0) for i in range(length)]


ACTIVATED = {"invocation": (5, 9, 7),
             "batches": [[Sequence(13, trained_from=4, invocation_at=(2, 7)), Sequence(6), Sequence(9, invocation_at=(6,))],
                         [Sequence(11, invocation_at=(3,))]]}

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

# ---- families ----

PROMPTS = ("prompt_tuning", "p_tuning", "prefix_tuning", "bottleneck")  # what has no order of rows
WINDOW = 6
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0}


def family(name, arch, kind, metadata=None, rope=None, model=None, **config):
    """A case of transformers' classes {kind}Config and {kind}ForCausalLM: a configuration with Llama's keys, and what they are
    in GGUF. `metadata` adds to that, None takes away."""
    shape = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 1, "max_position_embeddings": 64, "tie_word_embeddings": False, **config}
    rope = rope or DEFAULT_ROPE
    config = getattr(transformers, kind + "Config")(
        **shape, rope_parameters=rope, attn_implementation="eager", bos_token_id=1, eos_token_id=2, pad_token_id=None)
    full = rope.get("full_attention", rope)
    head_dim = shape.get("head_dim") or shape["hidden_size"] // shape["num_attention_heads"]
    keys = {
        "block_count": shape["num_hidden_layers"], "context_length": shape["max_position_embeddings"],
        "embedding_length": shape["hidden_size"], "feed_forward_length": shape["intermediate_size"],
        "attention.head_count": shape["num_attention_heads"], "attention.head_count_kv": shape["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": shape.get("rms_norm_eps", getattr(config, "rms_norm_eps", None)),
        "rope.dimension_count": int(head_dim * full.get("partial_rotary_factor", 1)), "rope.freq_base": full["rope_theta"],
        "vocab_size": shape["vocab_size"]}
    if head_dim * shape["num_attention_heads"] != shape["hidden_size"]:
        keys |= {"attention.key_length": head_dim, "attention.value_length": head_dim}
    if full["rope_type"] in ("linear", "yarn"):
        keys |= {"rope.scaling.type": full["rope_type"], "rope.scaling.factor": full["factor"]}
    if full["rope_type"] == "yarn":
        keys |= {"rope.scaling.original_context_length": full["original_max_position_embeddings"]}
    keys = {key: value for key, value in (keys | (metadata or {})).items() if value is not None}
    return case_of(name, arch, config, getattr(transformers, model or kind + "ForCausalLM"), keys)


def case_of(name, arch, config, model_class, metadata):
    return Case(name, 10 + sum(map(ord, name)), Type.F16, Type.F16, rank=2, alpha=4, target_modules="all-linear",
                n_vocab=96, arch=arch, config=config, model_class=model_class, metadata=metadata, learning_rate=3e-3,
                weight_decay=0.1, batches=[[Sequence(19, trained_from=3), Sequence(9)], [Sequence(12)]])


def gpt2(name):
    config = transformers.GPT2Config(vocab_size=96, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=1,
                                     eos_token_id=2, attn_implementation="eager")
    return case_of(name, "gpt2", config, transformers.GPT2LMHeadModel, {
        "block_count": 2, "context_length": 64, "embedding_length": 32, "feed_forward_length": 128, "attention.head_count": 2,
        "attention.layer_norm_epsilon": 1e-5})


def falcon(name, n_embd, n_ff, n_head, n_head_kv, **settings):
    config = transformers.FalconConfig(
        vocab_size=96, hidden_size=n_embd, num_hidden_layers=2, num_attention_heads=n_head, num_kv_heads=n_head_kv,
        ffn_hidden_size=n_ff, max_position_embeddings=64, rope_parameters=DEFAULT_ROPE, bos_token_id=1, eos_token_id=2,
        attn_implementation="eager", **settings)
    return case_of(name, "falcon", config, transformers.FalconForCausalLM, {
        "context_length": 64, "tensor_data_layout": "jploski", "embedding_length": n_embd, "feed_forward_length": n_ff,
        "block_count": 2, "attention.head_count": n_head, "attention.head_count_kv": n_head_kv,
        "attention.layer_norm_epsilon": 1e-5, "rope.freq_base": 10000.0})


def gptneox(name, parallel):
    config = transformers.GPTNeoXConfig(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, use_parallel_residual=parallel, bos_token_id=1, eos_token_id=2,
        rope_parameters=DEFAULT_ROPE | {"partial_rotary_factor": 0.25}, attn_implementation="eager")
    return case_of(name, "gptneox", config, transformers.GPTNeoXForCausalLM, {
        "context_length": 64, "embedding_length": 32, "block_count": 2, "feed_forward_length": 64, "rope.dimension_count": 4,
        "rope.freq_base": 10000.0, "attention.head_count": 2, "use_parallel_residual": parallel,
        "attention.layer_norm_epsilon": 1e-5})


def longrope(n_pairs, original, **more):
    return DEFAULT_ROPE | {"rope_type": "longrope", "original_max_position_embeddings": original,
                           "short_factor": [1 + 0.05 * i for i in range(n_pairs)],
                           "long_factor": [1 + 0.7 * i for i in range(n_pairs)], **more}


def longrope_keys(context, original, window):
    return {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": original,
            "rope.scaling.attn_factor": sqrt(1 + log(context / original) / log(original)),
            "attention.sliding_window": window}


YARN = DEFAULT_ROPE | {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
GEMMA = {"num_attention_heads": 4, "head_dim": 16, "tie_word_embeddings": True}

CASES += [
    family("llama_biases", "llama", "Llama", attention_bias=True, mlp_bias=True),
    family("llama_yarn", "llama", "Llama", {"rope.scaling.attn_factor": 0.9 / (1 + 0.1 * log(4))},
           rope=YARN | {"attention_factor": 0.9}),
    family("mistral_window", "llama", "Mistral", {"attention.sliding_window": WINDOW}, sliding_window=WINDOW),
    family("qwen2", "qwen2", "Qwen2", rope=DEFAULT_ROPE | {"rope_theta": 1e6}),
    family("qwen2_yarn", "qwen2", "Qwen2", rope=YARN, tie_word_embeddings=True),
    family("qwen3", "qwen3", "Qwen3", rope=DEFAULT_ROPE | {"rope_theta": 1e6}, num_attention_heads=4,
           num_key_value_heads=2, head_dim=16, tie_word_embeddings=True),
    family("granite", "granite", "Granite",
           {"attention.scale": 0.1, "embedding_scale": 3.0, "residual_scale": 0.22, "logit_scale": 2.0},
           attention_multiplier=0.1, embedding_multiplier=3.0, residual_multiplier=0.22, logits_scaling=2.0,
           tie_word_embeddings=True),
    family("smollm3", "smollm3", "SmolLM3", rope=DEFAULT_ROPE | {"rope_theta": 5e6}, num_hidden_layers=4,
           tie_word_embeddings=True),
    family("mistral3", "mistral3", "Ministral3",
           {"rope.scaling.yarn_beta_fast": 32.0, "rope.scaling.yarn_beta_slow": 1.0,
            "rope.scaling.yarn_log_multiplier": 1.0, "attention.temperature_scale": 0.1},
           rope=DEFAULT_ROPE | {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 8,
                                "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
                                "llama_4_scaling_beta": 0.1},
           num_attention_heads=4, num_key_value_heads=2, head_dim=16, max_position_embeddings=128),
    family("phi3", "phi3", "Phi3", longrope_keys(128, 32, WINDOW), rope=longrope(8, 32), max_position_embeddings=128,
           original_max_position_embeddings=32, sliding_window=WINDOW),
    family("phi4_mini", "phi3", "Phi3", longrope_keys(64, 4, 0),
           rope=longrope(6, 4, partial_rotary_factor=0.75), original_max_position_embeddings=4, sliding_window=None,
           tie_word_embeddings=True),
    gpt2("gpt2"),
    falcon("falcon_7b", 32, 128, 2, 1),
    falcon("falcon_40b", 64, 96, 4, 2, new_decoder_architecture=True),
    gptneox("gptneox", True),
    gptneox("gptneox_serial", False),
    family("gemma", "gemma", "Gemma", **GEMMA),
    family("gemma2", "gemma2", "Gemma2",
           {"attention.scale": 24 ** -0.5, "attention.sliding_window": WINDOW, "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 1.5}, **GEMMA, num_hidden_layers=3, sliding_window=WINDOW, query_pre_attn_scalar=24,
           attn_logit_softcapping=2.0, final_logit_softcapping=1.5),
    family("gemma3", "gemma3", "Gemma3Text", {"attention.sliding_window": WINDOW, "rope.freq_base_swa": 10000.0},
           rope={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                 "sliding_attention": DEFAULT_ROPE},
           model="Gemma3ForCausalLM", **GEMMA, num_hidden_layers=6, sliding_window=WINDOW, query_pre_attn_scalar=16),
    family("olmo2", "olmo2", "Olmo2", num_key_value_heads=2),
    family("olmo3", "olmo2", "Olmo3",
           {"attention.sliding_window": WINDOW, "attention.sliding_window_pattern": [True, True, True, False]},
           rope={"full_attention": YARN, "sliding_attention": DEFAULT_ROPE}, num_hidden_layers=4, sliding_window=WINDOW),
    # Other methods, with PEFT's own target modules of IA3.
    replace(family("ia3_llama", "llama", "Llama", attention_bias=True, num_key_value_heads=2), method="ia3",
            target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    replace(gpt2("ia3_gpt2"), method="ia3", target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"]),
    replace(falcon("ia3_falcon", 64, 96, 4, 2, new_decoder_architecture=True), method="ia3",
            target_modules=["query_key_value", "dense_4h_to_h"], feedforward_modules=["dense_4h_to_h"]),
    replace(family("bitfit_llama", "llama", "Llama", attention_bias=True, mlp_bias=True), method="bitfit"),
    replace(gpt2("bitfit_gpt2"), method="bitfit"),
    replace(family("bitfit_gemma2", "gemma2", "Gemma2",
                   {"attention.scale": 24 ** -0.5, "attention.sliding_window": WINDOW, "attn_logit_softcapping": 2.0,
                    "final_logit_softcapping": 1.5}, **GEMMA, num_hidden_layers=3, sliding_window=WINDOW,
                   query_pre_attn_scalar=24, attn_logit_softcapping=2.0, final_logit_softcapping=1.5), method="bitfit",
            weight_decay=0.0),  # GGUF has 1 + w, which would shrink to another point
    # Everything, with a head of its own and with one that is the embedding.
    replace(family("full_llama", "llama", "Llama", attention_bias=True, num_key_value_heads=2), method="full",
            learning_rate=1e-3),
    replace(gpt2("full_gpt2"), method="full", learning_rate=1e-3),
    replace(family("prompt_llama", "llama", "Llama", attention_bias=True, num_key_value_heads=2), method="prompt_tuning"),
    replace(gpt2("prompt_gpt2"), method="prompt_tuning"),
    replace(family("encoded_prompt_llama", "llama", "Llama", attention_bias=True, num_key_value_heads=2), method="p_tuning"),
    replace(gpt2("encoded_prompt_gpt2"), method="p_tuning"),
    replace(family("prefix_llama", "llama", "Llama", attention_bias=True, num_key_value_heads=2), method="prefix_tuning"),
    replace(gpt2("prefix_gpt2"), method="prefix_tuning"),
    Case("pissa_q4_0", 7, Type.Q4_0, Type.Q8_0, rank=4, alpha=8, target_modules="all-linear", pissa=True, n_layer=1,
         tied=True, learning_rate=5e-3, weight_decay=0.1, batches=[[Sequence(11, trained_from=2), Sequence(7)], [Sequence(9)]]),
    replace(gpt2("pissa_gpt2"), target_modules=["c_attn", "mlp.c_proj"], pissa=True, use_rslora=True),
    replace(family("houlsby_llama", "llama", "Llama", attention_bias=True, num_key_value_heads=2), method="bottleneck"),
    replace(gpt2("houlsby_gpt2"), method="bottleneck", non_linearity="gelu_new"),
    replace(family("pfeiffer_llama", "llama", "Llama", attention_bias=True, num_key_value_heads=2), method="bottleneck",
            placement="pfeiffer", non_linearity="relu"),
    replace(gpt2("pfeiffer_gpt2"), method="bottleneck", placement="pfeiffer", non_linearity="gelu"),
    # A LoRA on the output head: with layers, on a tied head under a cap, and alone.
    replace(family("head_qwen2", "qwen2", "Qwen2", rope=DEFAULT_ROPE | {"rope_theta": 1e6}),
            target_modules=["q_proj", "down_proj", "lm_head"]),
    replace(family("head_gemma2", "gemma2", "Gemma2",
                   {"attention.scale": 24 ** -0.5, "attention.sliding_window": WINDOW, "attn_logit_softcapping": 2.0,
                    "final_logit_softcapping": 1.5}, **GEMMA, num_hidden_layers=3, sliding_window=WINDOW,
                   query_pre_attn_scalar=24, attn_logit_softcapping=2.0, final_logit_softcapping=1.5),
            target_modules=["v_proj", "lm_head"]),
    replace(gpt2("head_gpt2"), target_modules=["lm_head"]),
    # Activated LoRAs: texts with their invocation twice, without it, and at their end; a head too.
    Case("alora_q4_0", 8, Type.Q4_0, Type.Q8_0, rank=4, alpha=8, target_modules="all-linear", **ACTIVATED),
    replace(family("alora_qwen2", "qwen2", "Qwen2", rope=DEFAULT_ROPE | {"rope_theta": 1e6}),
            target_modules=["q_proj", "down_proj", "lm_head"], **ACTIVATED),
    replace(gpt2("alora_gpt2"), target_modules=["c_attn", "mlp.c_proj"], **ACTIVATED),
]

TABLES = {}


def table(case):
    """What tensors the model has, as the engine's description says."""
    if case.name not in TABLES:
        layers = ["q", "k", "v", "output"] * getattr(case.config, "attention_bias", False)
        biases = [f"blk.0.attn_{layer}.bias" for layer in layers]
        layers = ["gate", "up", "down"] * getattr(case.config, "mlp_bias", False)
        biases += [f"blk.0.ffn_{layer}.bias" for layer in layers]
        metadata = {"vocab_size": case.n_vocab} | case.metadata
        TABLES[case.name] = lorica_tensors.of_metadata(
            {"general.architecture": case.arch} | {f"{case.arch}.{key}": value for key, value in metadata.items()}, biases)
    return TABLES[case.name]


def ggml_name(case, name):
    """model.layers.0.self_attn.q_proj.weight -> blk.0.attn_q.weight"""
    names = table(case).by_hf_name
    if name == "lm_head.weight" and name not in names:
        name = "embed_out.weight"  # as files of GPT-NeoX have it, not transformers' class
    return names[name].name


def tensor_of(case, name):
    """The one that "blk.0.attn_q.weight" or "blk.0.attn_q.weight.lora_b" is about."""
    return next(tensor for ours, tensor in table(case).items() if name == ours or name.startswith(ours + "."))


def in_ggml_order(case, name, rows):
    """Rows of a weight, of B, of a bias: in the order in which GGUF has them."""
    return tensor_of(case, name).rows_in_gguf(rows)


def as_stored(case, name, values):
    """What GGUF has in the place of a parameter of transformers'."""
    if case.arch.startswith("gemma") and values.ndim == 1:
        values = values + np.float32(1)
    return tensor_of(case, name).in_gguf(values)


# ---- the model and the adapter ----


def make_model(case, folder):
    """Writes model.gguf and returns the same model in transformers."""
    model = case.model_class(case.config).eval()

    writer = gguf.GGUFWriter(folder / "model.gguf", case.arch)
    writer.add_name(case.name)
    for key, value in case.metadata.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool,
               list: writer.add_array}[type(value)]
        add(f"{case.arch}.{key}", value)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(TOKENS[:case.n_vocab])
    writer.add_token_scores([0.0] * case.n_vocab)
    writer.add_token_types(TOKEN_TYPES[:case.n_vocab])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    is_family = case.n_vocab != len(TOKENS)
    rng = np.random.default_rng(case.seed)
    with torch.no_grad():
        for hf_name, parameter in model.named_parameters():  # a tied head is not among them
            name = ggml_name(case, hf_name)
            if parameter.dim() == 1:
                start = 0 if hf_name.endswith("bias") or case.arch.startswith("gemma") else 1
                values = (start + 0.1 * rng.standard_normal(parameter.shape)).astype(np.float32)
                if is_family:
                    values = values.astype(np.float16).astype(np.float32)
                writer.add_tensor(name, as_stored(case, name, values))
            else:
                # Outputs as large as inputs: attention is neither uniform nor one-hot.
                n_in = parameter.shape[0 if tensor_of(case, name).conv1d else 1]
                values = (rng.standard_normal(parameter.shape) / np.sqrt(n_in)).astype(np.float32)
                tensor_type = case.embedding_type if name in ("token_embd.weight", "output.weight") else case.type
                # Blocks lie within rows, so reordering rows commutes with quantization.
                blocks = gguf.quants.quantize(values, tensor_type)
                values = gguf.quants.dequantize(blocks, tensor_type)
                stored = gguf.quants.quantize(as_stored(case, name, values), tensor_type)
                assert np.array_equal(gguf.quants.dequantize(stored, tensor_type), as_stored(case, name, values)), name
                writer.add_tensor(name, stored, raw_dtype=tensor_type)
            parameter.copy_(torch.from_numpy(values))
    if case.arch == "phi3":
        for length in ("long", "short"):
            factors = case.config.rope_parameters[f"{length}_factor"]
            writer.add_tensor(f"rope_factors_{length}.weight", np.array(factors, dtype=np.float32))
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
        use_dora=case.use_dora, alora_invocation_tokens=case.invocation and list(case.invocation), fan_in_fan_out=case.arch == "gpt2", task_type="CAUSAL_LM",
        init_lora_weights="pissa" if case.pissa else True))
    times = 2 if case.pissa else 1  # a second half takes away what the first began as
    writer = gguf.GGUFWriter(folder / "adapter.gguf", case.arch)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "dora" if case.use_dora else "lora")
    # The program that loads it scales by alpha / r; rsLoRA means alpha / sqrt(r).
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, times * case.alpha * (np.sqrt(case.rank) if case.use_rslora else 1))
    if case.pissa:
        writer.add_bool("lorica.frozen_half", True)
    if case.invocation:
        writer.add_key_value(gguf.Keys.Adapter.ALORA_INVOCATION_TOKENS, list(case.invocation), gguf.GGUFValueType.ARRAY,
                             gguf.GGUFValueType.UINT32)

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
            elif case.pissa:
                values = parameter.numpy() + (0.02 * rng.standard_normal(parameter.shape)).astype(np.float32)
            else:
                # A as PEFT starts it, B a fifth of that size.
                size = {"lora_A": 1.0, "lora_B": 0.2}[half] / np.sqrt(3 * parameter.shape[1])
                values = (size * rng.standard_normal(parameter.shape)).astype(np.float32)
            full_name = f"{ggml_name(case, base + '.weight')}.{half.lower()}"
            parameters[full_name] = parameter
            start = parameter.numpy().copy()
            parameter.copy_(torch.from_numpy(values))
            if case.pissa:
                values = np.concatenate([values, start] if half == "lora_A" else [values, -start], 0 if half == "lora_A" else 1)
            writer.add_tensor(full_name, in_lora_order(case, full_name, values))
    write(writer)
    return model, parameters


def make_other_adapter(case, model, folder):
    """The same for IA3, whose model is PEFT's, and for BitFit, whose model is the base with parameters that have gradients."""
    if case.method == "ia3":
        model = get_peft_model(model, IA3Config(
            target_modules=case.target_modules, feedforward_modules=case.feedforward_modules or [],
            fan_in_fan_out=case.arch == "gpt2", task_type="CAUSAL_LM"))
    elif case.method == "prompt_tuning":
        model = get_peft_model(model, PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    elif case.method == "prefix_tuning":
        model = get_peft_model(model, PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    elif case.method == "p_tuning":
        model = get_peft_model(model, PromptEncoderConfig(
            num_virtual_tokens=3, encoder_hidden_size=24, task_type="CAUSAL_LM"))
    elif case.method == "bottleneck":
        model.requires_grad_(False)
        add_bottlenecks(case, model)
    else:
        model.requires_grad_(False)
    writer = gguf.GGUFWriter(folder / "adapter.gguf", case.arch)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, case.method)
    if case.method == "bottleneck":
        writer.add_string("lorica.bottleneck.placement", case.placement)
        writer.add_string("lorica.bottleneck.non_linearity", case.non_linearity)
    rng = np.random.default_rng(100 + case.seed)
    parameters = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if case.method == "ia3":
                if not parameter.requires_grad:
                    continue
                base = name.removeprefix("base_model.model.").removesuffix(".ia3_l.default")
                full_name = f"{ggml_name(case, base + '.weight')}.ia3_l"
            elif case.method == "prompt_tuning":
                if not parameter.requires_grad:
                    continue
                full_name = "prompt_embeddings"
            elif case.method == "prefix_tuning":
                if not parameter.requires_grad:
                    continue
                full_name = "prefix"
            elif case.method == "bottleneck":
                if not parameter.requires_grad:
                    continue
                parts = name.split(".")
                layer, branch = parts[2], "attn" if "attention_adapters" in parts else "ffn"
                full_name = f"blk.{layer}.{branch}_adapter_{'down' if 'adapter_down' in parts else 'up'}.{parts[-1]}"
            elif case.method == "p_tuning":
                if not parameter.requires_grad:
                    continue
                full_name = "prompt_encoder." + name.removeprefix("prompt_encoder.default.")
            elif parameter.ndim != 1 and case.method != "full":
                continue
            else:
                parameter.requires_grad_(True)
                full_name = ggml_name(case, name)
            size = 0.2 if parameter.ndim == 1 or case.method in ("ia3", "bottleneck") else 0.02
            parameter.add_(torch.from_numpy((size * rng.standard_normal(parameter.shape)).astype(np.float32)))
            parameters[full_name] = parameter
            values = parameter.detach().numpy()
            if case.method == "prefix_tuning":
                for part, half in prefix_parts(case, values):
                    writer.add_tensor(part, half)
                continue
            stored = in_lora_order(case, full_name, values) if case.method in ("ia3", *PROMPTS) else as_stored(case, full_name, values)
            writer.add_tensor(full_name, stored.reshape(-1, 1) if stored.ndim == 1 else stored)
        if case.method == "p_tuning":
            writer.add_tensor("prompt_embeddings", model.get_prompt(1)[0].numpy())
    write(writer)
    return model, parameters


class Bottleneck(torch.nn.Module):
    """up(act(down(x))), with the names of AdapterHub's modules."""

    def __init__(self, case, n_embd, width):
        super().__init__()
        self.adapter_down = torch.nn.Sequential(torch.nn.Linear(n_embd, width), get_activation(case.non_linearity))
        self.adapter_up = torch.nn.Linear(width, n_embd)
        self.enabled = True
        for parameter in self.parameters():
            torch.nn.init.zeros_(parameter)

    def forward(self, x):
        return self.adapter_up(self.adapter_down(x)) if self.enabled else torch.zeros_like(x)


def add_bottlenecks(case, model):
    """As AdapterHub computes them (Houlsby: double_seq_bn, Pfeiffer: seq_bn) in models whose norms come before the branches.
    model.disable_adapter() is as PEFT's."""
    adapters = []

    def bottleneck():
        adapters.append(Bottleneck(case, case.config.hidden_size, 5))
        return adapters[-1]

    def behind_branch(adapter):  # the branch's output, before it is added to the stream
        def hook(module, arguments, output):
            first = output[0] if isinstance(output, tuple) else output
            first = first + adapter(first)
            return (first, *output[1:]) if isinstance(output, tuple) else first
        return hook

    layers = model.transformer.h if case.arch == "gpt2" else model.model.layers
    for layer in layers:
        if case.placement == "houlsby":
            layer.attention_adapters = bottleneck()
            (layer.attn if case.arch == "gpt2" else layer.self_attn).register_forward_hook(behind_branch(layer.attention_adapters))
        layer.output_adapters = bottleneck()
        (layer.mlp if case.placement == "houlsby" else layer).register_forward_hook(behind_branch(layer.output_adapters))

    @contextlib.contextmanager
    def disable_adapter():
        for adapter in adapters:
            adapter.enabled = False
        yield
        for adapter in adapters:
            adapter.enabled = True

    model.disable_adapter = disable_adapter


def prefix_parts(case, values):
    """What PEFT keeps in one row for each virtual token, layer by layer keys and then values."""
    n_layer = case.n_layer
    for i, half in enumerate(np.split(values, 2 * n_layer, axis=1)):
        layer = i // 2
        if i % 2 == 1:
            yield f"blk.{layer}.prefix_v", np.ascontiguousarray(half)
        else:
            # Keys have the order of the rows that make them.
            keys = half if case.arch == "gpt2" else in_ggml_order(case, f"blk.{layer}.attn_k.weight", half.T).T
            yield f"blk.{layer}.prefix_k", np.ascontiguousarray(keys)


def in_other_order(case, name, values):
    # A vector of the inputs has no rows.
    return values if values.ndim == 2 and values.shape[0] == 1 else in_ggml_order(case, name, values)


def in_lora_order(case, name, values):
    if case.method in PROMPTS:
        return values
    if case.method == "full":
        return as_stored(case, name, values)
    if case.method != "lora":
        return in_other_order(case, name, values)
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


def make_batch(sequences, rng, case):
    tokens = [rng.integers(0, case.n_vocab, s.length).astype(np.int32) for s in sequences]
    for sequence, ids in zip(sequences, tokens):
        for at in sequence.invocation_at:
            ids[at:at + len(case.invocation)] = case.invocation
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
    output = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **arguments)
    output.logits = output.logits[:, -len(tokens):]  # not those of a prompt
    return output


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
    print(f"  losses {losses[0]:.4f} {losses[1]:.4f} ... {losses[-2]:.4f} {losses[-1]:.4f}, "
          f"gradient norms {norms.min():.3f} to {norms.max():.3f}")
    wrong = {
        "no weight decay": (adamw(weight_decay=0), case.max_grad_norm),
        "weight decay in the gradient": (lambda tensors: torch.optim.Adam(
            tensors, lr=case.learning_rate, weight_decay=case.weight_decay), case.max_grad_norm),
        "no clipping": (adamw(), None),
        "beta2 0.99": (adamw(betas=(0.9, 0.99)), case.max_grad_norm),
        "beta1 0.8": (adamw(betas=(0.8, 0.999)), case.max_grad_norm),
    }
    if case.n_vocab != len(TOKENS):
        wrong = {}
    told_apart = set()
    for what, (make_optimizer, max_grad_norm) in wrong.items():
        other, _ = train(model, parameters, batches, make_optimizer, max_grad_norm)
        difference = np.max(np.abs(other - losses) / losses)
        print(f"  {what}: losses differ by {difference:.1e}")
        if difference > 10 * TOLERANCE:
            told_apart.add(what)
    return losses, norms, told_apart, set(wrong)


def golden(case, folder):
    make = make_adapter if case.method == "lora" else make_other_adapter
    model, parameters = make(case, make_model(case, folder), folder)
    rng = np.random.default_rng(200 + case.seed)
    batches = [make_batch(sequences, rng, case) for sequences in case.batches]
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
        is_base = case.method in ("bitfit", "full") or case.pissa  # it was changed itself
        base = make_model(case, folder) if is_base else model
        with contextlib.nullcontext() if is_base else model.disable_adapter():
            writer.add_tensor("base_logits", torch.stack([run(base, x).logits[0, -1] for x in first.tokens]).numpy())

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
        for part, values in prefix_parts(case, gradient) if name == "prefix" else [(name, gradient)]:
            writer.add_tensor(f"gradient.{part}", values)
        parameter.grad = None

    losses, norms, told_apart, wrong = trajectory(case, model, parameters, batches)
    writer.add_tensor("losses", losses)
    writer.add_tensor("grad_norms", norms)
    write(writer)
    return told_apart, wrong


def check(made, there):
    """Stops where a file differs from what was made now by more than rounding."""
    for name in ("model.gguf", "adapter.gguf"):
        if (made / name).read_bytes() != (there / name).read_bytes():
            raise SystemExit(f"{there / name} is another file than this script writes")
    new, old = (gguf.GGUFReader(folder / "golden.gguf") for folder in (made, there))
    if list(new.fields) != list(old.fields) or [t.name for t in new.tensors] != [t.name for t in old.tensors]:
        raise SystemExit(f"{there / 'golden.gguf'} has other values than this script writes")
    furthest = 0.0
    for ours, theirs in zip(new.tensors, old.tensors):
        if ours.data.shape != theirs.data.shape:
            raise SystemExit(f"{there / 'golden.gguf'}: {ours.name} has the shape {theirs.data.shape}, not {ours.data.shape}")
        largest = np.abs(ours.data).max()
        difference = np.abs(ours.data.astype(np.float64) - theirs.data).max() / (largest or 1)
        if not difference <= ROUNDING:
            raise SystemExit(f"{there / 'golden.gguf'}: {ours.name} differs by {difference:.1e} of its largest element")
        furthest = max(furthest, difference)
    print(f"  the files that are there have the same values, golden.gguf within {furthest:.1e}")


def main():
    parser = argparse.ArgumentParser(description="Writes the model goldens.")
    parser.add_argument("--check", action="store_true", help="compare the files that are there with what would be written")
    parser.add_argument("--output", type=Path, default=DATA)
    parser.add_argument("names", nargs="*", help="of cases (default: all)")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    told_apart, wrong = set(), set()  # names of wrong optimizers
    for case in CASES:
        if arguments.names and case.name not in arguments.names:
            continue
        there = arguments.output / case.name
        print(case.name)
        with tempfile.TemporaryDirectory() if arguments.check else contextlib.nullcontext(there) as folder:
            folder = Path(folder)
            folder.mkdir(parents=True, exist_ok=True)
            for target, found in zip((told_apart, wrong), golden(case, folder)):
                target |= found
            if arguments.check:
                check(folder, there)
    if told_apart != wrong and not arguments.names:
        raise SystemExit(f"no case tells these from AdamW: {', '.join(sorted(wrong - told_apart))}")


if __name__ == "__main__":
    main()
