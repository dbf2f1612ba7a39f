#!/usr/bin/env python3
"""Speed of each family of models next to Llama's at equal operations: models of random weights of one shape, trained and decoded in turns,
so that what else the machine does falls on all of them alike. Prints a table for README.md.

    scripts/bench_families.py --steps 7 native/build/lorica-bench

A training step counts the products of linear layers and the head, 4 operations per weight and token, and decoding as much per token as
there are weights; what norms, biases, activations and windows cost is in the time and not in the operations.
Where the build needs the Debian 13 root: scripts/devroot.sh python3 scripts/bench_families.py ...
"""

import argparse
import json
import statistics
import subprocess

from bench_builds import Build

FAMILIES = ["qwen2", "qwen3", "gemma", "gemma2", "gemma3", "mistral3", "phi3", "granite", "smollm3", "olmo2", "gpt2", "falcon", "gptneox"]
LAYERS, WIDTH, FEED_FORWARD, HEADS, KV_HEADS, HEAD, VOCABULARY = 30, 576, 1536, 9, 3, 64, 32000  # s135, as lorica-bench has it


def weights(family):
    gates, feed_forward = (2, FEED_FORWARD * 3 // 2) if family in ("gpt2", "falcon", "gptneox") else (3, FEED_FORWARD)
    kv_heads = {"gpt2": HEADS, "gptneox": HEADS, "falcon": 1}.get(family, KV_HEADS)
    layer = WIDTH * (2 * HEADS * HEAD + 2 * kv_heads * HEAD + gates * feed_forward)
    return LAYERS * layer + WIDTH * VOCABULARY


def options(family, arguments):
    return ["--shape", "s135", "--architecture", family, "--type", arguments.type]


def decoding(family, arguments):
    run = subprocess.run(
        [arguments.bench, "decode", *options(family, arguments), "--prompt", "16", "--generate", "32", "--repetitions", "1"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return json.loads(run.stdout)["result"]["decode_tokens_per_second"]["median"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=7, help="of each family (7)")
    parser.add_argument("--tokens", default="1024", help="of a step (1024)")
    parser.add_argument("--type", default="q4_0", help="of the weights (q4_0)")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("bench", metavar="LORICA_BENCH")
    arguments = parser.parse_args()
    print("| Architecture | Training | Decoding |\n| --- | --- | --- |", flush=True)
    for family in arguments.families.split(","):
        per_weight = weights(family) / weights("llama")
        pair = [Build(arguments.bench, [*options(name, arguments), "--tokens", arguments.tokens]) for name in ("llama", family)]
        ratios = []
        for step in range(arguments.steps + 1):
            order = pair if step % 2 == 0 else pair[::-1]
            seconds = {build: build.step() for build in order}
            if step > 0:  # the first warms up
                ratios.append(seconds[pair[0]] / seconds[pair[1]] * per_weight)
        for build in pair:
            build.end()
        decoded = []
        for _ in range(max(2, arguments.steps // 2)):
            llama, own = decoding("llama", arguments), decoding(family, arguments)
            decoded.append(own / llama * per_weight)
        print(f"| `{family}` | {spread(ratios)} | {spread(decoded)} |", flush=True)


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
