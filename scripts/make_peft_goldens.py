#!/usr/bin/env python3
"""Writes the PEFT goldens of java/lorica-core: adapters as PEFT saves them, and the logits that PEFT computes with them.

    pip install torch==2.13.0 transformers==5.18.0 peft==0.21.0 gguf==0.19.0 safetensors     # Python 3.11
    scripts/make_peft_goldens.py

The base is the case "grouped_heads_f32" of make_family_goldens.py, whose model.gguf lies in native/tests/data/model_goldens.
Each adapter is a folder: adapter_config.json, adapter_model.safetensors, and golden.safetensors with tokens[T] and logits[T, V].
"""
import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import save_file

import make_family_goldens as models

DATA = models.REPOSITORY / "java/lorica-core/src/test/resources/peft"
BASE = "grouped_heads_f32"

ADAPTERS = {
    "plain": dict(r=8, lora_alpha=16, target_modules="all-linear"),
    "rslora": dict(r=6, lora_alpha=9, target_modules=["q_proj", "k_proj", "v_proj"], use_rslora=True),
    # A suffix, a full name, a regular expression; the first that fits decides.
    "patterns": dict(r=4, lora_alpha=6, target_modules=["q_proj", "k_proj", "v_proj", "down_proj"],
                     rank_pattern={"layers.1.self_attn.q_proj": 5, "q_proj": 3, r"model\.layers\.[01]\.mlp\..*": 2},
                     alpha_pattern={"k_proj": 10, "^model.layers.0.*": 3, "q_proj": 7}),
    "rslora_patterns": dict(r=4, lora_alpha=6, target_modules=["k_proj", "o_proj"], use_rslora=True,
                            rank_pattern={"k_proj": 7}, alpha_pattern={"layers.1.self_attn.o_proj": 2}),
    "one_layer": dict(r=2, lora_alpha=8, target_modules=["q_proj", "up_proj"], layers_to_transform=[1]),
    "dora": dict(r=4, lora_alpha=6, target_modules=["q_proj", "k_proj", "o_proj", "down_proj"], use_dora=True, use_rslora=True,
                 alpha_pattern={"k_proj": 2}),
    "alora": dict(r=4, lora_alpha=8, target_modules="all-linear", alora_invocation_tokens=[5]),
    "regular_expression": dict(r=2, lora_alpha=8, target_modules=r".*layers\.0\..*(k_proj|gate_proj)"),
}


def make_base():
    case = next(case for case in models.CASES if case.name == BASE)
    with tempfile.TemporaryDirectory() as scratch:
        base = models.make_model(case, Path(scratch))
        stored = models.DATA / BASE / "model.gguf"
        assert (Path(scratch) / "model.gguf").read_bytes() == stored.read_bytes(), f"{stored} is of another version"
    return base


def write(name, settings, folder):
    model = get_peft_model(make_base(), LoraConfig(task_type="CAUSAL_LM", **settings))
    rng = np.random.default_rng(300)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if "lora_magnitude_vector" in parameter_name:
                parameter.mul_(torch.from_numpy((1 + 0.1 * rng.standard_normal(parameter.shape)).astype(np.float32)))
            elif parameter.requires_grad:
                size = (1.0 if "lora_A" in parameter_name else 0.3) / np.sqrt(3 * parameter.shape[1])
                parameter.copy_(torch.from_numpy((size * rng.standard_normal(parameter.shape)).astype(np.float32)))
    shutil.rmtree(folder, ignore_errors=True)
    model.peft_config["default"].base_model_name_or_path = BASE
    model.save_pretrained(folder)
    (folder / "README.md").unlink()

    # What counts is what PEFT makes of the folder: saving sorts the patterns, and the first that fits decides.
    base = make_base()
    tokens = rng.integers(0, len(models.TOKENS), 12)
    # One token, once: then a text that grows token by token has the logits of the whole text too.
    for invocation in settings.get("alora_invocation_tokens", ()):
        tokens[tokens == invocation] = 6
        tokens[6] = invocation
    with torch.no_grad():
        plain = models.run(base, tokens).logits[0].clone()
        logits = models.run(PeftModel.from_pretrained(base, folder).eval(), tokens).logits[0]
    effect = (logits - plain).abs().max() / logits.abs().max()
    assert effect > 0.05, f"{name} changes logits by {effect} only"
    save_file({"tokens": tokens.astype(np.float32), "logits": logits.numpy()}, folder / "golden.safetensors")
    print(f"{name}: logits change by {effect:.2f}")


def main():
    parser = argparse.ArgumentParser(description="Writes the PEFT goldens.")
    parser.add_argument("--output", type=Path, default=DATA)
    parser.add_argument("adapters", nargs="*", help="which; all if none is named")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.adapters or ADAPTERS:
        write(name, ADAPTERS[name], arguments.output / name)


if __name__ == "__main__":
    main()
