#!/usr/bin/env python3
"""Speed of each family of models next to Llama's at equal operations: models of random weights of one shape, trained and decoded in turns,
so that what else the machine does falls on all of them alike. Prints a table for README.md.

    scripts/bench_families.py --steps 7 native/build/lorica-bench

With --processor-time the ratios are of the time that the processor worked for either on one thread, not of the wall clock: a witness on
a busy machine, where whoever waits for a core looks slow.

A training step counts the products of linear layers and the head, 4 operations per weight and token, and decoding as much per token as
there are weights; what norms, biases, activations and windows cost is in the time and not in the operations.
Where the build needs the Debian 13 root: scripts/devroot.sh python3 scripts/bench_families.py ...
"""

import argparse
import json
import os
import pathlib
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
    # Threads that wait for one another are busy too.
    threads = ["--threads", "1"] if arguments.processor_time else []
    return ["--shape", "s135", "--architecture", family, "--type", arguments.type, *threads]


def decoding(family, arguments):
    """Tokens per second; of processor time those of 192 tokens more, so that start and prompt count for nothing."""
    def run(n):
        before = os.times()
        output = subprocess.run(
            [arguments.bench, "decode", *options(family, arguments), "--prompt", "16", "--generate", str(n), "--repetitions", "1"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
        after = os.times()
        return json.loads(output), after.children_user - before.children_user
    if arguments.processor_time:
        return 192 / (run(224)[1] - run(32)[1])
    return run(32)[0]["result"]["decode_tokens_per_second"]["median"]


def step(build, arguments):
    """Seconds of one training step."""
    if not arguments.processor_time:
        return build.step()
    before = processor_seconds(build)
    build.step()
    return processor_seconds(build) - before


def processor_seconds(build):
    fields = pathlib.Path(f"/proc/{build.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")  # utime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=7, help="of each family (7)")
    parser.add_argument("--tokens", default="1024", help="of a step (1024)")
    parser.add_argument("--type", default="q4_0", help="of the weights (q4_0)")
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--processor-time", action="store_true", help="instead of the wall clock")
    parser.add_argument("bench", metavar="LORICA_BENCH")
    arguments = parser.parse_args()
    print("| Architecture | Training | Decoding |\n| --- | --- | --- |", flush=True)
    for family in arguments.families.split(","):
        per_weight = weights(family) / weights("llama")
        pair = [Build(arguments.bench, [*options(name, arguments), "--tokens", arguments.tokens]) for name in ("llama", family)]
        ratios = []
        for turn in range(arguments.steps + 1):
            order = pair if turn % 2 == 0 else pair[::-1]
            seconds = {build: step(build, arguments) for build in order}
            if turn > 0:  # the first warms up
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
