#!/usr/bin/env python3
"""What a step of training and a token of an 8B model should take on a GPU, from counted instructions, products and bytes.

    scripts/cuda_estimate.py [--counts FILE] [--gpu h100|h200] [--tma] [--expanded] [--overlap]

--counts: what `scripts/cuda_instructions.py --json` printed; without it that is run here, for which nvcc is needed. Every line of the
table says what it is made of. These are estimates: nothing in them was measured on a GPU. --tma: products with copies by the tensor
memory accelerator (LORICA_CUDA_TMA=1). --expanded: where the plan has room for bf16 copies of the weights (16 GB at 8B). --overlap: kernels of a token begin while the one before
ends (LORICA_CUDA_OVERLAP=1).

A kernel on tensor cores takes the longest of three: what its tensor cores need, what its schedulers need to issue its instructions
(one a cycle each), and what its operands need from the L2 cache or from shared memory; a part of it is lost to the fewer tiles of the last wave, to the
beginning and the end of each tile. Others take their bytes at a share of the memory's rate.
"""
import argparse
import json
import math
import os
import subprocess
import sys

GPUS = {  # multiprocessors, clock in GHz under load, memory and L2 in GB/s
    "h100": dict(sm=132, clock=1.60, memory=3350, l2=5500),
    "h200": dict(sm=132, clock=1.60, memory=4800, l2=5500),
}
# Llama 3 8B, r = 16 on all seven layers, Q4_K: 4.5 bits for each weight and a half for what is in Q6_K.
LAYERS, EMBD, FF, HEADS, HEADS_KV, DIM, VOCAB, RANK = 32, 4096, 14336, 32, 8, 128, 128256, 16
KV = HEADS_KV * DIM
WEIGHT_BYTES = 0.57
LAUNCH = 1.5e-6  # from one kernel of a graph to the next
OVERLAPPED_LAUNCH = 0.7e-6  # where the next one is on the device already and waits for the memory of the one before: a guess


class Estimate:
    def __init__(self, counts, gpu, tokens, tma=False, copies=False, overlap=False):
        self.counts, self.gpu, self.tokens, self.tma, self.copies, self.overlap = counts, gpu, tokens, tma, copies, overlap
        self.rows = []

    def kernel(self, *parts):
        for row in self.counts:
            if all(part in row["kernel"] for part in parts):
                return row
        sys.exit(f"no counts of a kernel with {parts}; is the JSON that of all files for 90a?")

    def product(self, m, n, k, backward=False):
        """Seconds of one c[m, n] with wgmma."""
        best = None
        for cols in (256, 128):
            row = self.kernel("gemm_tma" if self.tma else "gemm_wgmma", f"<{1 if backward else 0}, {cols}>")
            # Two tiles of rows are a pair, which reads its columns of b once.
            tiles = 2 * math.ceil(m / 256) * math.ceil(n / cols) if self.tma else math.ceil(m / 128) * math.ceil(n / cols)
            waves = math.ceil(tiles / self.gpu["sm"])
            # Of a turn of 64 of k: two warps on each scheduler.
            # (a loop may have been unrolled: four products are a turn)
            tensor, issue = 4 * 2 * 64 * cols * 16 / 4 / 512, 2 * row["issue"] * 4 / row["mma"]
            busy = min(tiles, self.gpu["sm"])
            l2 = (128 + (cols / 2 if self.tma else cols)) * 64 * 2 / (self.gpu["l2"] / self.gpu["clock"] / busy)
            turn = max(tensor, issue, l2)
            # The stages that fill the pipeline, and the tile's way out: 10 instructions for each 8 of its elements and warp.
            ends = 2 * turn + 128 * cols / 8 / 256 * 40 * 2 + 1500
            seconds = waves * (k / 64 * turn + ends) / self.gpu["clock"] / 1e9
            if best is None or seconds < best:
                best = seconds
        return best + LAUNCH

    def bytes(self, n, share=0.85):
        return n / (self.gpu["memory"] * 1e9 * share)

    def add(self, name, seconds, how):
        self.rows.append((name, seconds, how))

    def attention(self, kernel, flops_per_turn, turns, blocks_per_sm=2):
        """turns: of all warps together."""
        row = self.kernel(*kernel)
        # A scheduler holds one warp of each resident block; instructions and tensor cores overlap between them only.
        # Shared memory gives or takes 32 bytes a cycle and scheduler, and an operand or a copy of a warp is 512.
        shared = (row["ldmatrix"] + row["copies"]) * 512 / 32
        turn = max(row["issue"], row["tensor"], shared) * 1.15 if blocks_per_sm > 1 else row["issue"] + row["tensor"]
        return turns * turn / (4 * self.gpu["sm"]) / self.gpu["clock"] / 1e9

    def step(self):
        t = self.tokens
        # x W^T of q, k, v, o, gate, up, down; dx as one product for layers with one input.
        forward = sum(self.product(t, n, k + RANK) for n, k in ((EMBD, EMBD), (KV, EMBD), (KV, EMBD), (EMBD, EMBD), (FF, EMBD), (FF, EMBD), (EMBD, FF)))
        backward = sum(self.product(t, n, k, True) for n, k in ((EMBD, EMBD + 2 * KV + 3 * RANK), (EMBD, EMBD + RANK), (EMBD, 2 * FF + 2 * RANK), (FF, EMBD + RANK)))
        self.add("products with W, forward", LAYERS * forward, "the L2 cache (a tile of 128 x 256 wants 48 bytes a cycle, half of a pair 32), waves, ends of tiles")
        self.add("products with W, backward", LAYERS * backward, "the same")
        head = self.product(t, VOCAB, EMBD) + self.product(t, EMBD, VOCAB, True)
        self.add("head", head, "two products over the vocabulary")
        weights = LAYERS * (2 * EMBD * EMBD + 2 * EMBD * KV + 3 * EMBD * FF)
        chunks = math.ceil(t / 1024)
        expanded = 2 * weights + 2 * chunks * VOCAB * EMBD
        row = self.kernel("dequantize_kernel<12, bf16>")  # Q4_K
        issue = expanded / 32 / 32 * row["issue"] / (4 * self.gpu["sm"] * self.gpu["clock"] * 1e9)
        if not self.copies:
            self.add("weights expanded to bf16", max(self.bytes(expanded * (2 + WEIGHT_BYTES)), issue),
                     f"{expanded / 1e9:.1f} G weights, {2 + WEIGHT_BYTES} bytes each")
        pairs = t * t / 2 * HEADS  # of one sequence
        # Forward: a warp's turn is 32 queries by 32 keys. Backward: 16 by 32, in two kinds of blocks.
        forward = self.attention(("attention_forward", "128, 2, 32"), 0, pairs * 1.06 / (32 * 32))
        backward = self.attention(("attention_backward", "<128, 32>"), 0, 2 * pairs * 1.06 / (16 * 32))
        self.add("attention, forward", LAYERS * forward, "tensor cores or shared memory, two blocks a multiprocessor")
        self.add("attention, backward", LAYERS * backward, "the same; keys and queries together")
        # Reads of x for u and da, dy for v and db at once, each output once; converted adapters. Sums of v and db are made in parts,
        # which are written and read again.
        act = 2
        outs = (EMBD, KV, KV, EMBD, FF, FF, EMBD)
        forward = t * act * (EMBD + EMBD + EMBD + FF) + 4 * t * RANK * act * 2
        backward = t * act * (sum(outs) + 3 * EMBD + FF)
        blocks = math.ceil(t / 256)
        stretches = max(min(16, 2 * self.gpu["sm"] // blocks), 1)
        parts = sum((min(stretches, math.ceil(out / 64)) * t + blocks * out) * RANK * 4 * 2 for out in outs)
        # bf16 copies are read in both directions, sums of gradients read and written.
        adapters = RANK * (2 * 2 + 8) * (2 * EMBD + (EMBD + KV) * 2 + 3 * (EMBD + FF))
        launches = LAYERS * (4 * 2 + 7 * 2 + 4 * 2)
        self.add("LoRA's own products", LAYERS * self.bytes(forward + backward + parts + adapters, 0.7) + launches * LAUNCH, "their bytes, launches")
        rows = t * (4 * EMBD * 4 * 2 + 2 * EMBD * 2 * 3 + 4 * EMBD * 4) + t * act * (3 * FF + 5 * FF) + t * act * 4 * (EMBD + KV)
        self.add("norms, rope, gates", LAYERS * self.bytes(rows, 0.8) + LAYERS * 12 * LAUNCH, "their bytes")
        self.add("softmax and loss", self.bytes(t * VOCAB * 4 * 2.5, 0.8), "f32 logits twice, gradients once")
        parameters = LAYERS * RANK * (2 * EMBD + 2 * (EMBD + KV) + 3 * (EMBD + FF))
        self.add("optimizer, gaps", self.bytes(parameters * (28 + 6)) + 2e-3, "parameters, gradients, moments; adapters to bf16")
        return sum(row[1] for row in self.rows)

    def token(self, n_keys=1024):
        self.rows = []
        weights = LAYERS * (2 * EMBD * EMBD + 2 * EMBD * KV + 3 * EMBD * FF) + VOCAB * EMBD
        row = self.kernel("matvec_row_kernel<12>")
        issue = weights / 4096 * row["issue"] / (4 * self.gpu["sm"] * self.gpu["clock"] * 1e9) / 0.85
        memory = self.bytes(weights * WEIGHT_BYTES, 0.88)
        self.add("products with W and head", max(issue, memory),
                 f"memory {memory * 1e3:.2f} ms, issue {issue * 1e3:.2f} ms ({row['issue']} instructions for 4,096 weights)")
        launch = OVERLAPPED_LAUNCH if self.overlap else LAUNCH
        self.add("attention", LAYERS * (self.bytes(n_keys * KV * 2 * 2, 0.5) + 2 * launch + 3e-6), f"{n_keys:,} keys")
        self.add("launches", LAYERS * 6 * launch, "of a graph")
        self.add("logits to the host", VOCAB * 4 / 20e9 + 10e-6, "pinned")
        return sum(row[1] for row in self.rows)

    def show(self, title, total):
        print(f"| {title} | ms | of what |\n| --- | ---: | --- |")
        for name, seconds, how in self.rows:
            print(f"| {name} | {seconds * 1e3:.2f} | {how} |")
        print(f"| sum | {total * 1e3:.2f} | |\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--counts")
    parser.add_argument("--gpu", choices=GPUS, default="h100")
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--tma", action="store_true")
    parser.add_argument("--expanded", action="store_true")
    parser.add_argument("--overlap", action="store_true")
    arguments = parser.parse_args()
    if arguments.counts:
        with open(arguments.counts) as file:
            counts = json.load(file)
    else:
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cuda_instructions.py")
        printed = subprocess.run([sys.executable, script, "--json"], stdout=subprocess.PIPE, text=True).stdout
        if not printed.startswith("["):
            print(printed.strip())
            return
        counts = json.loads(printed)
    estimate = Estimate(counts, GPUS[arguments.gpu], arguments.tokens, arguments.tma, arguments.expanded, arguments.overlap)
    total = estimate.step()
    estimate.show(f"{arguments.tokens:,} tokens of one sequence, {arguments.gpu.upper()}", total)
    print(f"{arguments.tokens / total:,.0f} tokens a second\n")
    total = estimate.token()
    estimate.show(f"a token, {arguments.gpu.upper()}", total)
    weights = LAYERS * (2 * EMBD * EMBD + 2 * EMBD * KV + 3 * EMBD * FF) + VOCAB * EMBD
    rate = weights * WEIGHT_BYTES / total / 1e9
    print(f"{1 / total:,.0f} tokens a second, {100 * rate / GPUS[arguments.gpu]['memory']:.0f} % of the memory's rate")


if __name__ == "__main__":
    main()
