#!/usr/bin/env python3
"""What attention with a window of 512 keys costs per token in longer and longer texts, next to attention without one: forward, backward,
and one decoding step, on one thread, f32. Prints a table: processor time per token at each length, over that at the shortest. With a
window the ratio stays near 1; without one it grows with the length.

    scripts/bench_window.py --repetitions 5 native/build/kernels_attention_bench

Lengths and masks take turns, so that what else the machine does falls on all of them alike; of the repetitions the median counts. The
benchmark is made by `cmake --build native/build --target kernels_attention_bench`, where Google Benchmark is installed.
Where the build needs the Debian 13 root: scripts/devroot.sh python3 scripts/bench_window.py ...
"""

import argparse
import json
import statistics
import subprocess

LENGTHS = [2048, 4096, 8192]


def times(bench):
    """Nanoseconds of processor time by name: forward/f32_window_512/length:2048/..."""
    run = subprocess.run([bench, "--benchmark_filter=f32_(window_512|causal)", "--benchmark_format=json", "--benchmark_min_time=0.2s"],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return {one["name"]: one["cpu_time"] for one in json.loads(run.stdout)["benchmarks"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("bench", metavar="KERNELS_ATTENTION_BENCH")
    arguments = parser.parse_args()
    runs = [times(arguments.bench) for _ in range(arguments.repetitions)]
    print("| | Window | " + " | ".join(f"{length} tokens" for length in LENGTHS) + " |")
    print("| --- | --- | " + " | ".join("---:" for _ in LENGTHS) + " |")
    for what in ("forward", "backward", "decode"):
        for window in ("window_512", "causal"):
            ratios = []
            for length in LENGTHS:
                def per_token(run, n):
                    # Decoding is one token whatever the length.
                    return run[f"{what}/f32_{window}/length:{n}/head_dim:64/threads:1"] / (1 if what == "decode" else n)
                ratios.append(statistics.median(per_token(run, length) / per_token(run, LENGTHS[0]) for run in runs))
            print(f"| {what} | {'512' if window == 'window_512' else 'none'} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")


if __name__ == "__main__":
    main()
