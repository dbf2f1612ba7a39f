#!/usr/bin/env python3
"""Counts the instructions that the CUDA kernels execute in each turn of their main loops, from compiled code.

    scripts/cuda_instructions.py [--arch 90a] [--source FOLDER] [--cubins FOLDER] [FILE…]     prints a table in Markdown
    scripts/cuda_instructions.py --json …                                                     the same as JSON

Needs nvcc and no GPU; without nvcc it says so and exits with 0. Nothing else of the toolkit is needed: instructions of compute
capability 7.0 and later are 16 bytes with the operation in the lowest 12 bits, and that much of them is read here. A turn is the
cheapest way through the loop that executes the most tensor-core and copy instructions, which leaves out what is for the edges of
matrices. FILE: names of sources without .cu.

Columns: `issue` is what a warp issues in a turn, `tensor` for how many cycles a scheduler's tensor core is busy with that warp's
products of the turn at the rates of the chosen architecture (an H100's where that is none; mma.sync reaches 62 % of it). A kernel
whose `issue` is above `tensor` waits for its own instructions. `outside` has the spilled loads and stores that are in no turn. Shared
memory and threads are the launch's: LORICA_CUDA_PROFILE=1 prints them for each kernel, on a GPU and in the emulation.
"""
import argparse
import collections
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

repository = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

HMMA, HGMMA, LDSM, LDGSTS = 0x23C, 0x9F0, 0x83B, 0xFAE
BRA, EXIT = 0x947, 0x94D
# m16n8k16 is 2,048 products. An H100's scheduler does 512 a cycle, of which mma.sync reaches 62 %; an A100's 256; those of GeForce
# cards of 8.6, 8.9 and 12.0 64 with f32 sums.
HMMA_CYCLES = {"80": 8, "86": 32, "89": 32, "120": 32}
HOPPER_HMMA_CYCLES = 6.4
STL, LDL = 0x387, 0x983
# Kernels without tensor cores whose loops are of interest, and the arithmetic that marks them: FFMA; FADD, FMUL and conversions.
FLOATING = {kind << 8 | o for kind in (2, 4, 6, 8, 12) for o in (0x20, 0x21, 0x23, 0x3E)}
others = ("matvec_kernel", "dequantize_kernel")


def sections(path):
    with open(path, "rb") as file:
        data = file.read()
    (start,) = struct.unpack_from("<Q", data, 40)
    count, names = struct.unpack_from("<HH", data, 60)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, start + 64 * i) for i in range(count)]
    for header in headers:
        begin = headers[names][4] + header[0]
        name = data[begin : data.index(b"\0", begin)].decode()
        yield name, b"" if header[1] == 8 else data[header[4] : header[4] + header[5]]


def signed(value, bits):
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


class Code:
    """The instructions of a kernel, as far as they matter here."""

    def __init__(self, data):
        words = [int.from_bytes(data[i : i + 16], "little") for i in range(0, len(data), 16)]
        # Behind the code there is a branch to itself, which tells how distances are encoded.
        self.n = max(i for i, w in enumerate(words) if w & 0xFFF == BRA and self.wide(w) * self.narrow(w) and -16 in (self.wide(w), self.narrow(w))) + 1
        distance = self.wide if self.wide(words[self.n - 1]) == -16 else self.narrow
        self.operations = [w & 0xFFF for w in words[: self.n]]
        self.targets, self.conditional = {}, {}
        for i, w in enumerate(words[: self.n]):
            if self.operations[i] in (BRA, EXIT):
                self.conditional[i] = w >> 12 & 15 != 7 or w >> 87 & 7 != 7
                if self.operations[i] == BRA:
                    self.targets[i] = i + 1 + distance(w) // 16

    @staticmethod
    def narrow(word):  # bytes, before compute capability 9.0
        return signed(word >> 32 & (1 << 50) - 1, 50)

    @staticmethod
    def wide(word):  # words of four bytes, the lowest eight bits apart
        return 4 * signed((word >> 34 & (1 << 48) - 1) << 8 | word >> 16 & 255, 56)

    def loops(self):
        return [(target, i) for i, target in self.targets.items() if target < i]

    def turn(self, begin, end, wanted):
        """The operations on the way through [begin, end] that has the most wanted and copy instructions and, of those, is shortest."""
        best = {begin: ((0, 0), None)}  # instruction: (score so far), where from
        for i in range(begin, end + 1):
            if i not in best:
                continue
            weight = 1000 if self.operations[i] == LDGSTS or self.operations[i] in wanted else 0
            score = (best[i][0][0] + weight, best[i][0][1] - 1)
            if i == end:
                break
            following = []
            if self.operations[i] in (BRA, EXIT):
                if self.conditional[i]:
                    following.append(i + 1)
                if self.operations[i] == BRA and i < self.targets[i] <= end:
                    following.append(self.targets[i])
                elif self.operations[i] == BRA and self.targets[i] <= i:
                    following.append(i + 1)  # an inner loop, once
            else:
                following.append(i + 1)
            for j in following:
                if j not in best or best[j][0] < score:
                    best[j] = (score, i)
        if end not in best:
            return []
        path, i = [], end
        while i is not None:
            path.append(self.operations[i])
            i = best[i][1]
        return path

    def main_turn(self, wanted):
        """Of the loops the one with the most of these instructions in a turn, and of those the shortest."""
        ends = [i for i, o in enumerate(self.operations) if o == EXIT]
        turns = [self.turn(*loop, wanted) for loop in self.loops()] or [self.turn(0, max(ends), wanted)]
        return max((t for t in turns if t), key=lambda t: (sum(o in wanted for o in t), -len(t)), default=[])


def demangle(names):
    found = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout.split("\n")
    return dict(zip(names, found))


def short(name):
    name = re.sub(r"^void ", "", re.sub(r"lorica::cuda::|\(anonymous namespace\)::|_GLOBAL__N__\w+::", "", name))
    return re.sub(r"\(.*$", "", re.sub(r"\((?:int|bool|ggml_type|GemmLayout|lorica[^)]*|GemmLayout)\)", "", name))


def compile_one(name, arch, source, folder):
    cubin = os.path.join(folder, f"{name}.{arch}.cubin")
    native = os.path.join(source, "native")
    path = os.path.join(native, "src/backend/cuda", name + ".cu")
    log = cubin + ".log"
    if not os.path.exists(cubin) or os.path.getmtime(cubin) < os.path.getmtime(path):
        command = ["nvcc", "-std=c++20", "-O3", "-DNDEBUG", "--expt-relaxed-constexpr", "--extended-lambda", f"-arch=sm_{arch}", "-cubin",
                   "-Xptxas", "-v", f"-I{native}/include", f"-I{native}/src", "-o", cubin, path]
        if arch == "90a":
            command.insert(1, "-DLORICA_CUDA_SM90A")
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        with open(log, "w") as file:
            file.write(done.stderr + done.stdout)
    usage, kernel = {}, None
    with open(log) as file:
        for line in file:
            if found := re.search(r"Compiling entry function '(\w+)'", line):
                kernel = found[1]
                usage[kernel] = {}
            elif found := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", line):
                usage[kernel]["spills"] = int(found[2])
            elif found := re.search(r"Used (\d+) registers", line):
                usage[kernel]["registers"] = int(found[1])
    return cubin, usage


def measure(cubin, usage, arch):
    rows = []
    for name, data in sections(cubin):
        kernel = name.removeprefix(".text.")
        if not name.startswith(".text.") or kernel not in usage:
            continue
        code = Code(data)
        tensor = any(o in (HMMA, HGMMA) for o in code.operations)
        if not tensor and not any(o in kernel for o in others):
            continue
        turn = code.main_turn({HMMA, HGMMA} if tensor else FLOATING)
        counts = collections.Counter(turn)
        busy = counts[HMMA] * HMMA_CYCLES.get(arch, HOPPER_HMMA_CYCLES)
        if counts[HGMMA]:  # m64nNk16: 64 N 16 / 4 products for each scheduler, N from the kernel's name
            columns = 256 if "ELi256" in kernel else 128
            busy = counts[HGMMA] * 64 * columns * 16 / 4 / 512
        rows.append({"kernel": kernel, "code_bytes": 16 * code.n, **usage[kernel], "issue": len(turn), "tensor": round(busy),
                     "mma": counts[HMMA] + counts[HGMMA], "ldmatrix": counts[LDSM], "copies": counts[LDGSTS],
                     "spilled_in_turn": counts[STL] + counts[LDL], "spilled": sum(o in (STL, LDL) for o in code.operations)})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arch", default="90a")
    parser.add_argument("--source", default=repository, help="another checkout, to compare with")
    parser.add_argument("--cubins", help="where compiled code is kept and looked for")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("files", nargs="*", default=["gemm", "gemm_wgmma", "gemm_tma", "attention_forward", "attention_backward", "matvec", "dequantize"])
    arguments = parser.parse_args()
    if not shutil.which("nvcc"):
        print("cuda_instructions: there is no nvcc on the PATH; nothing was counted")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.cubins or temporary
        os.makedirs(folder, exist_ok=True)
        rows = []
        for name in arguments.files:
            rows += measure(*compile_one(name, arguments.arch, arguments.source, folder), arguments.arch)
    names = demangle([row["kernel"] for row in rows])
    for row in rows:
        row["kernel"] = short(names[row["kernel"]])
    if arguments.json:
        json.dump(rows, sys.stdout, indent=1)
        return
    print(f"sm_{arguments.arch}\n")
    print("| kernel | registers | spilled in a turn | outside | code KB | issue | tensor | mma | ldmatrix | copies |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(f"| {row['kernel']} | {row['registers']} | {row['spilled_in_turn']} | "
              f"{row['spilled'] - row['spilled_in_turn']} | {row['code_bytes'] / 1024:.0f} | {row['issue']} | "
              f"{row['tensor'] or ''} | {row['mma'] or ''} | {row['ldmatrix'] or ''} | {row['copies'] or ''} |")


if __name__ == "__main__":
    main()
