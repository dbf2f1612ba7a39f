#!/usr/bin/env python3
"""Compares adapters between Lorica and Hugging Face PEFT, in f32, both ways. Not part of the tests: it needs PyTorch.

    pip install torch==2.13.0 transformers==5.18.0 peft==0.21.0 gguf==0.19.0     # Python 3.11
    scripts/check_peft.py models/austen-7m-q4_0.gguf

PEFT gets the base as transformers dequantizes it from the same file. Trains adapters with Lorica for some steps and loads
them in PEFT; makes adapters with PEFT (rsLoRA, patterns, DoRA, the output head, modules to save) and loads them in Lorica. Prints the largest difference of logits
relative to the largest logit, and fails above 1e-3.
"""
import argparse
import json
import shlex
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

REPOSITORY = Path(__file__).resolve().parent.parent
LIMIT = 1e-3
PEFT_ADAPTERS = {
    "all-linear": dict(r=8, lora_alpha=16, target_modules="all-linear"),
    "rsLoRA": dict(r=16, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], use_rslora=True),
    "patterns": dict(r=4, lora_alpha=6, target_modules=["q_proj", "k_proj", "down_proj"],
                     rank_pattern={"k_proj": 7, r"layers\.[02]\.mlp\.down_proj": 2}, alpha_pattern={"q_proj": 11}),
    "DoRA": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], use_dora=True),
    "some layers": dict(r=4, lora_alpha=8, target_modules=["q_proj", "gate_proj"], layers_to_transform=[1, 3]),
    "output head": dict(r=4, lora_alpha=8, target_modules=["q_proj", "lm_head"]),
    "aLoRA": dict(r=4, lora_alpha=8, target_modules="all-linear", alora_invocation_tokens=[30, 31]),
    "modules to save": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], modules_to_save=["embed_tokens", "lm_head", "model.norm"]),
}


class Lorica:
    def __init__(self, program, java, gguf):
        self.program, self.java, self.gguf = program, shlex.split(java), gguf

    def run(self, *arguments):
        subprocess.run([*self.java, "-jar", self.program / "lorica-cli.jar", *map(str, arguments)],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def logits(self, adapter, tokens, scratch, gguf=None):
        output = Path(scratch) / "logits"
        subprocess.run([*self.java, "-cp", f"{self.program}/lorica-cli.jar:{self.program}/lib/*", REPOSITORY / "scripts/Logits.java",
                        gguf or self.gguf, adapter, output, ",".join(map(str, tokens))], check=True)
        return np.fromfile(output, dtype="<f4").reshape(len(tokens), -1)


def load_base(gguf):
    return AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32,
                                                attn_implementation="eager").eval()


def logits_of(model, tokens):
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()
    return logits[-len(tokens):]  # not those of a prompt


def main():
    parser = argparse.ArgumentParser(description="Compares adapters between Lorica and PEFT.")
    parser.add_argument("gguf", type=Path, help="a Llama")
    parser.add_argument("--program", type=Path, default=REPOSITORY / "java/lorica-cli/target/lorica")
    parser.add_argument("--java", default="java", help='the command, such as "scripts/devroot.sh java"')
    parser.add_argument("--data", type=Path, default=REPOSITORY / "models/data/pride_and_prejudice_train.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lorica = Lorica(arguments.program, arguments.java, arguments.gguf.resolve())
    rng = np.random.default_rng(1)
    differences = {}

    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        base = load_base(arguments.gguf)
        tokens = rng.integers(0, base.config.vocab_size, 48).tolist()
        tokens[20:22] = PEFT_ADAPTERS["aLoRA"]["alora_invocation_tokens"]
        plain = logits_of(base, tokens)

        def compare(name, ours, theirs):
            largest = np.abs(theirs).max()
            differences[name] = np.abs(ours - theirs).max() / largest
            print(f"{name}: difference {differences[name]:.1e}, effect of the adapter {np.abs(theirs[:, :plain.shape[1]] - plain).max() / largest:.2f}")

        compare("base alone", lorica.logits("none", tokens, scratch), plain)

        lora = ["--lora-r", 8]
        for name, flags in {"all-linear": lora, "rsLoRA on q, k": [*lora, "--use-rslora", "--target-modules", "q_proj,k_proj"],
                            "DoRA": [*lora, "--use-dora"], "PiSSA": [*lora, "--init-lora-weights", "pissa"],
                            "aLoRA": [*lora, "--alora-invocation", "### Response:"],
                            "output head": [*lora, "--target-modules", "q_proj,lm_head"],
                            "modules to save": [*lora, "--modules-to-save", "embed_tokens,lm_head,norm", "--target-modules", "q_proj,v_proj"],
                            "prompt": ["--method", "prompt-tuning"], "P-tuning": ["--method", "p-tuning"],
                            "prefix": ["--method", "prefix-tuning"]}.items():
            trained = scratch / f"trained {len(differences)}"
            lorica.run("train", "--model", lorica.gguf, "--data", arguments.data, "--output", trained, "--max-steps", 6,
                       "--learning-rate", 5e-3, *flags)
            in_peft = PeftModel.from_pretrained(load_base(arguments.gguf), trained).eval()
            # Of aLoRA, a text in which it begins.
            invocation = json.loads((trained / "adapter_config.json").read_text()).get("alora_invocation_tokens") or []
            text = tokens[:30] + invocation + tokens[30 + len(invocation):]
            compare(f"trained by Lorica, loaded by PEFT, {name}", lorica.logits(trained / "adapter.gguf", text, scratch),
                    logits_of(in_peft, text))

        trained, merged, words = scratch / "trained with tokens", scratch / "grown.gguf", scratch / "tokens.txt"
        words.write_text("<tool>\n</tool>\n")
        lorica.run("train", "--model", lorica.gguf, "--data", arguments.data, "--output", trained, "--max-steps", 6,
                   "--learning-rate", 5e-3, *lora, "--add-tokens", words, "--modules-to-save", "embed_tokens,lm_head")
        lorica.run("merge", "--model", lorica.gguf, "--adapter", trained, "--type", "F32", "--output", merged)
        added = list(json.loads((trained / "added_tokens.json").read_text()).values())
        grown = load_base(arguments.gguf)
        grown.resize_token_embeddings(base.config.vocab_size + len(added), mean_resizing=False)
        text = tokens[:30] + added + tokens[30 + len(added):]
        compare("trained by Lorica, loaded by PEFT, added tokens", lorica.logits("none", text, scratch, merged),
                logits_of(PeftModel.from_pretrained(grown, trained).eval(), text))

        trained = scratch / "trained whole"
        lorica.run("train", "--model", lorica.gguf, "--data", arguments.data, "--output", trained, "--max-steps", 6,
                   "--learning-rate", 1e-3, "--method", "full", "--adapter-format", "peft")
        whole = AutoModelForCausalLM.from_pretrained(trained / "huggingface", dtype=torch.float32,
                                                     attn_implementation="eager").eval()
        compare("trained by Lorica, loaded by transformers, full", lorica.logits(trained / "adapter.gguf", tokens, scratch),
                logits_of(whole, tokens))

        for name, settings in PEFT_ADAPTERS.items():
            model = get_peft_model(load_base(arguments.gguf), LoraConfig(task_type="CAUSAL_LM", **settings))
            with torch.no_grad():
                for parameter_name, parameter in model.named_parameters():
                    if "lora_magnitude_vector" in parameter_name or "modules_to_save" in parameter_name:
                        parameter.mul_(torch.from_numpy((1 + 0.1 * rng.standard_normal(parameter.shape)).astype(np.float32)))
                    elif "lora_" in parameter_name:
                        size = (1.0 if "lora_A" in parameter_name else 0.1) / parameter.shape[1] ** 0.5
                        parameter.copy_(torch.from_numpy((size * rng.standard_normal(parameter.shape)).astype(np.float32)))
            saved, converted, merged = scratch / f"peft {name}", scratch / f"gguf {name}", scratch / "merged.gguf"
            model.save_pretrained(saved)
            in_peft = PeftModel.from_pretrained(load_base(arguments.gguf), saved).eval()
            # Of these there is no LoRA file, of a head that is the embedding neither; folded into the model they can be written.
            if settings.get("use_dora") or settings.get("modules_to_save") or "lm_head" in settings["target_modules"]:
                lorica.run("merge", "--model", lorica.gguf, "--adapter", saved, "--type", "F32", "--output", merged, "--overwrite")
                ours = lorica.logits("none", tokens, scratch, merged)
            else:
                lorica.run("export", "--model", lorica.gguf, "--adapter", saved, "--format", "gguf", "--output", converted)
                ours = lorica.logits(converted / "adapter.gguf", tokens, scratch)
            compare(f"made by PEFT, loaded by Lorica, {name}", ours, logits_of(in_peft, tokens))

    if max(differences.values()) > LIMIT:
        raise SystemExit(f"a difference is above {LIMIT}")


if __name__ == "__main__":
    main()
