#!/usr/bin/env python3
"""Trains models/austen-7m on the Pride and Prejudice set with PyTorch + PEFT and writes the losses of 200 steps.

    pip install torch==2.13.0 transformers==5.18.0 peft==0.21.0 gguf==0.19.0     # Python 3.11
    scripts/compare_with_peft.py        # the target `lorica` must be built

Writes java/lorica-core/src/test/resources/peft-losses.json, one list of losses for each of LoRA, rsLoRA, DoRA and LoRA+.
PeftLossesTest trains the same in lorica, in f32 and without dropout, and holds each loss against that of PEFT.

Both sides see the same: the values that the blocks of the GGUF file stand for; the examples in the order of the file, in
the "### Instruction:" form, the response and its end trained on; A as lorica begins it (its random numbers are computed
here too), B = 0. The loss of a step is the mean over the trained tokens of its micro-batches, as the Trainer has it.
"""
import argparse
import json
from pathlib import Path

import gguf
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import lorica_tensors

REPOSITORY = Path(__file__).resolve().parent.parent
MODEL = REPOSITORY / "models/austen-7m-q4_0.gguf"
DATA = REPOSITORY / "models/data/pride_and_prejudice_train.json"
TARGET = REPOSITORY / "java/lorica-core/src/test/resources/peft-losses.json"

N_STEPS = 200
RANK, ALPHA, SEED = 8, 16, 42
BATCH_SIZE = 2
LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM = 1e-3, 0.1, 1.0
CASES = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "loraplus": {"loraplus_lr_ratio": 8},
}
TENSORS = lorica_tensors.of_model(MODEL).by_hf_name


# ---- lorica's random numbers: Philox4x32-10 (Salmon et al. 2011), seeds derived by splitmix64's finalizer


def philox(seed, n):
    """The first n numbers of the stream, 32 bits each."""
    blocks = np.arange((n + 3) // 4, dtype=np.uint64)
    low = np.uint64(0xFFFFFFFF)
    c = [blocks & low, blocks >> np.uint64(32), np.zeros_like(blocks), np.zeros_like(blocks)]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), p1 & low, (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=1).reshape(-1)[:n]


def derive_seed(seed, a, b):
    mask = (1 << 64) - 1

    def mix(z):
        z = (z + 0x9E3779B97F4A7C15) & mask
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)

    return mix(mix(mix(seed) ^ a) ^ b)


def first_a(tensor, shape):
    """Lorica numbers the linear layers of a block in the order of the computation."""
    block = [other.name for other in TENSORS.values() if other.is_linear and other.layer == tensor.layer]
    seed = derive_seed(SEED, tensor.layer, block.index(tensor.name))
    uniform = (philox(seed, shape[0] * shape[1]) >> np.uint64(8)).astype(np.float64) * 2.0**-24
    return ((2 * uniform - 1) / np.sqrt(shape[1])).astype(np.float32).reshape(shape)


# ---- the model


def load_model():
    reader = gguf.GGUFReader(MODEL)

    def value(key):
        return reader.get_field("llama." + key).contents()

    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    n_head, n_head_kv = value("attention.head_count"), value("attention.head_count_kv")
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=tensors["token_embd.weight"].shape[0], hidden_size=value("embedding_length"),
        intermediate_size=value("feed_forward_length"), num_hidden_layers=value("block_count"),
        num_attention_heads=n_head, num_key_value_heads=n_head_kv,
        max_position_embeddings=value("context_length"), rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        tie_word_embeddings="output.weight" not in tensors,
        rope_parameters={"rope_theta": value("rope.freq_base"), "rope_type": "default"}))

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = TENSORS[name].rows_in_huggingface(tensors[TENSORS[name].name])
            parameter.copy_(torch.from_numpy(np.array(values, dtype=np.float32)))
    return model


def examples():
    """(ids, labels) of each example; labels as the Trainer gives them, not shifted."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL.parent, gguf_file=MODEL.name)
    result = []
    for record in json.loads(DATA.read_text()):
        prompt = tokenizer.encode(f"### Instruction:\n{record['question']}\n\n### Response:\n", add_special_tokens=False)
        response = tokenizer.encode(record["answer"], add_special_tokens=False) + [tokenizer.eos_token_id]
        result.append((prompt + response, [-100] * len(prompt) + response))
    return result


# ---- training


def losses(data, threads, use_rslora=False, use_dora=False, loraplus_lr_ratio=None):
    torch.set_num_threads(threads)
    base = load_model()
    model = get_peft_model(base, LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", use_rslora=use_rslora, use_dora=use_dora,
        task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                base = name.removeprefix("base_model.model.").split(".lora_A")[0] + ".weight"
                parameter.copy_(torch.from_numpy(first_a(TENSORS[base], parameter.shape)))
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    if loraplus_lr_ratio:
        optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, lr=LEARNING_RATE,
                                              loraplus_lr_ratio=loraplus_lr_ratio, loraplus_weight_decay=WEIGHT_DECAY)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (N_STEPS - step) / N_STEPS)

    batches = [data[i:i + BATCH_SIZE] for i in range(0, len(data), BATCH_SIZE)]
    result, trained = [], []
    for step in range(N_STEPS):
        batch = batches[step % len(batches)]
        n_trained = sum(label != -100 for _, labels in batch for label in labels[1:])
        optimizer.zero_grad()
        total = 0
        for ids, labels in batch:
            loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels]), use_cache=False,
                         num_items_in_batch=n_trained).loss
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step()
        schedule.step()
        result.append(total)
        trained.append(n_trained)
    return result, trained


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    arguments = parser.parse_args()
    data = examples()
    golden = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    golden["settings"] = {"rank": RANK, "alpha": ALPHA, "seed": SEED, "batch_size": BATCH_SIZE,
                          "learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY, "max_grad_norm": MAX_GRAD_NORM,
                          "loraplus_lr_ratio": CASES["loraplus"]["loraplus_lr_ratio"]}
    for name in arguments.cases:
        values, golden["trained_tokens"] = losses(data, arguments.threads, **CASES[name])
        golden[name] = [float(f"{value:.7g}") for value in values]
        print(f"{name}: {values[0]:.4f} {values[1]:.4f} ... {values[-2]:.4f} {values[-1]:.4f}")
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(golden.items())]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
