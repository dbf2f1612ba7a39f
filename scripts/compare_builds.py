#!/usr/bin/env python3
"""Compares two builds of lorica-bench byte by byte: both train the same adapters in the same settings and generate with
them; adapters, optimizer states, losses and tokens must be the same. Prints a line per setting, ends with 1 on a
difference.

    scripts/compare_builds.py /tmp/before/lorica-bench native/build/lorica-bench

Where the builds need the Debian 13 root: scripts/devroot.sh scripts/compare_builds.py …
"""

import argparse
import filecmp
import functools
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
AUSTEN = ["--model", str(CHECKOUT / "models/austen-7m-q4_0.gguf")]
MODELS = {"mini q4_0": ["--shape", "mini", "--type", "q4_0"], "mini q8_0 f32": ["--shape", "mini", "--type", "q8_0",
          "--precision", "f32"], "austen-7m": AUSTEN}
TARGETS = ["all-linear", "q_proj,v_proj", "v_proj", "o_proj", "up_proj", "down_proj", "blk.1.attn_v",
           "blk.2.ffn_up,blk.3.ffn_gate:2", "gate_proj,blk.1.attn_output"]
KINDS = {"LoRA": [], "DoRA": ["--dora"], "dropout": ["--dropout-percent", "10"], "8-bit": ["--8bit"],
         "rsLoRA": ["--rslora"], "NEFTune": ["--neftune", "5"], "all at once": ["--dora", "--dropout-percent", "10",
         "--8bit", "--neftune", "5"]}
RECOMPUTATION = ["off", "auto", "on"]
ISAS = ["", "avx512bf16", "avx512", "avx2", "baseline"]


def settings(quick):
    """(what it is, options of trace, LORICA_ISA)"""
    for model, recomputation, kind in itertools.product(MODELS, RECOMPUTATION, KINDS):
        yield (f"{model}, {kind}, recomputation {recomputation}",
               MODELS[model] + KINDS[kind] + ["--recomputation", recomputation], "")
    for targets, recomputation, kind in itertools.product(TARGETS[1:], RECOMPUTATION, ["LoRA", "DoRA"]):
        yield (f"mini q4_0, {kind} on {targets}, recomputation {recomputation}",
               MODELS["mini q4_0"] + KINDS[kind] + ["--recomputation", recomputation, "--targets", targets], "")
    if quick:
        return
    for isa, model, kind in itertools.product(ISAS[1:], MODELS, ["LoRA", "all at once"]):
        yield f"{model}, {kind}, LORICA_ISA={isa}", MODELS[model] + KINDS[kind], isa


@functools.cache
def spelled(build, option):
    """--recomputation was --checkpointing once."""
    known = subprocess.run([build, "--help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    return "--checkpointing" if option == "--recomputation" and option not in known else option


def trace(build, options, isa, threads, folder):
    """Leaves in `folder` what a build makes."""
    options = [spelled(build, option) for option in options]
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    if isa:
        environment["LORICA_ISA"] = isa
    done = subprocess.run([build, "trace", *options, "--threads", str(threads), "--output", folder],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    if done.returncode != 0:
        sys.exit(f"{build}: {done.stderr.strip()}")


def differences(one, other, expected):
    names = sorted(os.listdir(one))
    if names != sorted(os.listdir(other)):
        return ["files"]
    return filecmp.cmpfiles(one, other, [n for n in names if n not in expected], shallow=False)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the best instruction set of this machine")
    parser.add_argument("--only", default="", help="settings whose line has this text")
    parser.add_argument("--expect", action="append", default=[], metavar="TEXT=FILE",
                        help="FILE of settings with TEXT may differ: rsLoRA=adapter.gguf")
    parser.add_argument("builds", nargs=2, metavar="LORICA_BENCH")
    arguments = parser.parse_args()
    n_different = n_settings = 0
    for what, options, isa in settings(arguments.quick):
        if arguments.only not in what:
            continue
        expected = {e.split("=")[1] for e in arguments.expect if e.split("=")[0] in what}
        with tempfile.TemporaryDirectory() as folder:
            made = []
            for build, threads in itertools.product(arguments.builds, (1, 2)):
                made.append(os.path.join(folder, str(len(made))))
                trace(build, options, isa, threads, made[-1])
            different = {name for other in made[1:] for name in differences(made[0], other, expected)}
        n_settings += 1
        n_different += bool(different)
        print(f"{what}: " + (", ".join(sorted(different)) + " differ" if different else "same"), flush=True)
    print(f"{n_settings} settings with 1 and 2 threads, {n_different} different")
    sys.exit(1 if n_different else 0)


if __name__ == "__main__":
    main()
