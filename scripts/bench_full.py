#!/usr/bin/env python3
"""Full fine-tuning of a SmolLM2-135M next to PyTorch's, taking turns: time of a step, and the most memory that each process has.

    scripts/bench_full.py --model smollm2-135m-bf16.gguf [--rounds 3] [--length 256] [--batch 4]

The same numbers of tokens in sequences of the same length, AdamW, f32 master weights on both sides: PyTorch in f32, and under autocast to bf16, of which the faster
counts. Weights of PyTorch's model are random, which changes no time. A BF16 file is made of any other by `scripts/lorica quantize`. Needs torch and transformers.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def torch_worker(options):
    import torch
    import transformers

    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(num_hidden_layers=30, hidden_size=576, intermediate_size=1536, num_attention_heads=9,
                                 num_key_value_heads=3, vocab_size=49152, max_position_embeddings=8192,
                                 tie_word_embeddings=True, use_cache=False))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    ids = torch.randint(0, 49152, (options.batch, options.length))
    times = []
    for _ in range(options.steps + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=options.worker == "bf16"):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"tokens_per_second": options.batch * options.length / seconds, "peak_memory_bytes": peak}))


def torch_run(options, dtype):
    command = [sys.executable, __file__, "--worker", dtype, "--length", str(options.length), "--batch", str(options.batch),
               "--steps", str(options.steps), "--threads", str(options.threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def lorica_run(options):
    with tempfile.TemporaryDirectory() as folder:
        text = " ".join(str(i) for i in range(200_000))
        data = Path(folder) / "text.txt"
        data.write_text(text)
        command = [str(CHECKOUT / "scripts/lorica"), "train", "--model", options.model, "--data", str(data), "--output",
                   f"{folder}/out", "--method", "full", "--max-length", str(options.length), "--batch-size", str(options.batch),
                   "--max-steps", str(options.steps + 1), "--learning-rate", "1e-5", "--threads", str(options.threads), "--json"]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        return {"tokens_per_second": result["tokens_per_second"], "peak_memory_bytes": result["peak_memory_bytes"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--worker", choices=["f32", "bf16"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return torch_worker(options)
    if not options.model:
        parser.error("--model is missing")
    results = {"lorica": [], "f32": [], "bf16": []}
    for _ in range(options.rounds):
        results["lorica"].append(lorica_run(options))
        for dtype in ("f32", "bf16"):
            results[dtype].append(torch_run(options, dtype))
    for name, runs in results.items():
        speeds = [run["tokens_per_second"] for run in runs]
        peak = max(run["peak_memory_bytes"] for run in runs)
        print(f"{name if name == 'lorica' else 'PyTorch ' + name:14} {statistics.median(speeds):8.1f} tok/s "
              f"({min(speeds):.1f} to {max(speeds):.1f}), peak {peak / 2**30:.2f} GiB")
    ratios = [mine["tokens_per_second"] / max(a["tokens_per_second"], b["tokens_per_second"])
              for mine, a, b in zip(results["lorica"], results["f32"], results["bf16"])]
    print(f"Lorica to the faster of PyTorch's: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
