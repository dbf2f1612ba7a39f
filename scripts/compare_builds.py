#!/usr/bin/env python3
"""Compares two builds of lorica-bench byte by byte: both train the same adapters in the same settings and generate with
them; adapters, optimizer states, losses and tokens must be the same. Prints a line per setting, ends with 1 on a
difference. Of a GGUF file that differs it says whether its metadata do or its tensors.

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


class Gguf:
    """The metadata of a GGUF file, and the bytes of its tensors by their names, dimensions and types."""

    SIZES = [1, 1, 2, 2, 4, 4, 4, 1, None, None, 8, 8, 8]  # of a value by its type
    STRING, ARRAY = 8, 9

    def __init__(self, path):
        self.data, self.at = pathlib.Path(path).read_bytes(), 8  # behind magic and version
        n_tensors, n_kv = self.number(8), self.number(8)
        self.metadata = {self.string(): self.value(self.number(4)) for _ in range(n_kv)}
        described = [(self.string(), tuple(self.number(8) for _ in range(self.number(4))), self.number(4), self.number(8))
                     for _ in range(n_tensors)]
        first = -(-self.at // 32) * 32
        ends = sorted(offset for *_, offset in described) + [len(self.data) - first]
        self.tensors = {(name, dimensions, kind): self.data[first + offset:first + ends[ends.index(offset) + 1]]
                        for name, dimensions, kind, offset in described}

    def take(self, size):
        self.at += size
        return self.data[self.at - size:self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "little")

    def string(self):
        return self.take(self.number(8))

    def value(self, kind):
        if kind == self.STRING:
            return self.string()
        if kind == self.ARRAY:
            kind, n = self.number(4), self.number(8)
            return [self.value(kind) for _ in range(n)]
        return self.take(self.SIZES[kind])


def differences(one, other):
    names = sorted(os.listdir(one))
    if names != sorted(os.listdir(other)):
        return {"files"}
    found = set()
    for name in filecmp.cmpfiles(one, other, names, shallow=False)[1]:
        if not name.endswith(".gguf"):
            found.add(name)
            continue
        mine, theirs = Gguf(os.path.join(one, name)), Gguf(os.path.join(other, name))
        found |= {f"{part} of {name}" for part in ("metadata", "tensors") if getattr(mine, part) != getattr(theirs, part)}
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the best instruction set of this machine")
    parser.add_argument("--only", default="", help="settings whose line has this text")
    parser.add_argument("--expect", action="append", default=[], metavar="TEXT=WHAT",
                        help="WHAT of settings with TEXT may differ: \"rsLoRA=metadata of adapter.gguf\", which has kept rank, "
                             "alpha and the flag since builds of 8065744")
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
            different = set().union(*(differences(made[0], other) for other in made[1:]))
        n_settings += 1
        n_different += bool(different - expected)
        says = [", ".join(sorted(names)) + verb for names, verb in
                ((different - expected, " differ"), (different & expected, " differ, as expected")) if names]
        print(f"{what}: " + ("; ".join(says) or "same"), flush=True)
    print(f"{n_settings} settings with 1 and 2 threads, {n_different} different" + " from what is expected" * bool(arguments.expect))
    sys.exit(1 if n_different else 0)


if __name__ == "__main__":
    main()
