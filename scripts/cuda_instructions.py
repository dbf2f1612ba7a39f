#!/usr/bin/env python3
"""Counts the instructions that the CUDA kernels execute in each turn of their main loops, from compiled code, and judges them.

    scripts/cuda_instructions.py [--arch 90a] [--source FOLDER] [--cubins FOLDER] [FILE…]     prints a table in Markdown
    scripts/cuda_instructions.py --json …                                                     the same as JSON

Needs nvcc and no GPU; without nvcc it says so and exits with 0. Nothing else of the toolkit is needed: instructions of compute
capability 7.0 and later are 16 bytes with the operation in the lowest 12 bits, and that much of them is read here. A turn is the
cheapest way through the loop that executes the most tensor-core and copy instructions, which leaves out what is for the edges of
matrices. FILE: names of sources without .cu. Products that expand a weight's blocks are compiled for one type at a time.

Columns: `issue` is what a warp issues in a turn. `tensor` is for how many cycles a scheduler's tensor core is busy with that warp's
products of the turn at the rates of the chosen architecture (an H100's where that is none; mma.sync reaches 62 % of it). `memory` is
for how many cycles its share of the memory's rate is busy with what only this block reads in the turn: of a product that has a rank
for a side the other operand, whose tiles nobody shares, of one with few rows the blocks of the weight; nothing where tiles come from
the L2 cache. A turn takes the longest of the three, which `binds` names. Where that is `issue`, a kernel on tensor cores waits for its
own instructions: then the exit status is 1, as it is for registers that are spilled by such a kernel. Kernels without tensor cores are
told, and not judged. `outside` has the spilled loads and stores that are in no turn. Shared memory and threads are the launch's:
LORICA_CUDA_PROFILE=1 prints them for each kernel, on a GPU and in the emulation.
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
# GPUs by architecture: memory in GB/s, multiprocessors, clock in GHz under load.
GPUS = {"80": (2039, 108, 1.41), "86": (936, 82, 1.70), "89": (1008, 128, 2.52), "90a": (3350, 132, 1.60), "100": (8000, 148, 1.85),
        "120": (1792, 170, 2.41)}
# Kernels without tensor cores whose loops are of interest, and the arithmetic that marks them: FFMA; FADD, FMUL and conversions.
FLOATING = {kind << 8 | o for kind in (2, 4, 6, 8, 12) for o in (0x20, 0x21, 0x23, 0x3E)}
# What else there is where blocks are expanded: reads from memory, halves to floats.
EXPANDING = FLOATING | {0x981, 0x230, 0x430, 0x830}
# Types of weights: bytes of 256 elements.
TYPES = {1: ("F16", 512), 2: ("Q4_0", 144), 3: ("Q4_1", 160), 6: ("Q5_0", 176), 7: ("Q5_1", 192), 8: ("Q8_0", 272), 10: ("Q2_K", 84),
         11: ("Q3_K", 110), 12: ("Q4_K", 144), 13: ("Q5_K", 176), 14: ("Q6_K", 210), 20: ("IQ4_NL", 144), 23: ("IQ4_XS", 136),
         39: ("MXFP4", 136)}
PLAIN = {0: 1024, 30: 512}
others = ("matvec_kernel", "matvec_row_kernel", "dequantize_kernel")


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
        """The operations on the way through [begin, end] that has the most wanted instructions and, of those, is shortest."""
        best = {begin: ((0, 0), None)}  # instruction: (score so far), where from
        for i in range(begin, end + 1):
            if i not in best:
                continue
            weight = 1000 if self.operations[i] in wanted else 0
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
        """Of the loops the one with the most of these instructions in a turn, and of those the shortest. A loop around one that has most of
        them is not that."""
        ends = [i for i, o in enumerate(self.operations) if o == EXIT]
        main = wanted & {HMMA, HGMMA} or wanted
        turns = {loop: self.turn(*loop, wanted) for loop in self.loops()} or {(0, max(ends)): self.turn(0, max(ends), wanted)}
        executed = {loop: sum(o in main for o in t) for loop, t in turns.items()}

        def is_around(loop):
            return any(loop != other and loop[0] <= other[0] and other[1] <= loop[1] and 2 * executed[other] > executed[loop] for other in turns)

        return max((t for loop, t in turns.items() if t and not is_around(loop)), key=lambda t: (sum(o in main for o in t), sum(o in wanted for o in t), -len(t)), default=[])


def demangle(names):
    found = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout.split("\n")
    return dict(zip(names, found))


def short(name):
    name = re.sub(r"^void ", "", re.sub(r"lorica::cuda::|\(anonymous namespace\)::|_GLOBAL__N__\w+::", "", name))
    return re.sub(r"\(.*$", "", re.sub(r"\((?:int|bool|ggml_type|GemmLayout|lorica[^)]*|GemmLayout)\)", "", name))


def compile_one(name, arch, source, folder, only=None):
    cubin = os.path.join(folder, f"{name}.{arch}{'' if only is None else f'.{only}'}.cubin")
    native = os.path.join(source, "native")
    cuda = os.path.join(native, "src/backend/cuda")
    path = os.path.join(cuda, name + ".cu")
    log = cubin + ".log"
    newest = max(os.path.getmtime(os.path.join(cuda, file)) for file in os.listdir(cuda) if file.endswith((".h", ".cuh")) or file == name + ".cu")
    if not os.path.exists(log) or os.path.getmtime(log) < newest:
        command = ["nvcc", "-std=c++20", "-O3", "-DNDEBUG", "--expt-relaxed-constexpr", "--extended-lambda", f"-arch=sm_{arch}", "-cubin",
                   "-Xptxas", "-v", f"-I{native}/include", f"-I{native}/src", "-o", cubin, path]
        if arch == "90a":
            command.insert(1, "-DLORICA_CUDA_SM90A")
        if only is not None:
            command.insert(1, f"-DLORICA_CUDA_ONLY_TYPE={only}")
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


def numbers(text):
    return [int(n) for n in re.findall(r"\d+", text)]


def with_blocks(kernel):
    return kernel.startswith("gemm_kernel") and kernel.endswith("true>") or kernel.startswith("few_rows_kernel")


def own_bytes(kernel, only, mma):
    """What only this warp's block reads in a turn, and how many schedulers it has for that."""
    if kernel.startswith("few_rows_kernel"):  # 64 x 128 weights for every 64 products of a warp
        return mma / 64 * 64 * 128 / 256 * TYPES[only][1], 4
    if kernel.startswith("gemm_kernel"):
        rows, cols = numbers(kernel)[:2]
        if cols == 16:
            return rows * 64 * 2, 4
        if rows == 16:
            return cols * 64 * 2, 4
    if kernel.startswith("adapter_gradient_kernel"):  # a tile of dy for so many products
        return mma / (numbers(kernel)[0] / 16 * 16) * 64 * 64 * 2, 4
    if kernel.startswith("matvec"):  # of one row of x, two chunks are a turn
        kind = numbers(kernel)[0]
        return (4096 if "row" in kernel else 2048) / 256 * (PLAIN[kind] if kind in PLAIN else TYPES[kind][1]), 1
    return 0, 4


def is_launched(kernel, arch):
    """Attention has smaller tiles where a multiprocessor has 100 KB of shared memory."""
    if not kernel.startswith("attention"):
        return True
    large = ("128, 2, 32", "64, 2, 64") if "forward" in kernel else ("<128, 32", "<64, 64")
    return any(shape in kernel for shape in large) != (arch in ("86", "89", "120"))


def measure(cubin, usage, arch, only=None):
    found = {name.removeprefix(".text."): data for name, data in sections(cubin) if name.startswith(".text.")}
    names = {kernel: short(name) for kernel, name in demangle([k for k in found if k in usage]).items()}
    memory, multiprocessors, clock = GPUS[arch]
    for kernel, name in names.items():
        code = Code(found[kernel])
        tensor = any(o in (HMMA, HGMMA) for o in code.operations)
        if with_blocks(name) != (only is not None) or not tensor and not any(o in kernel for o in others):
            continue
        turn = code.main_turn(EXPANDING | {HMMA} if only is not None else {HMMA, HGMMA, LDGSTS} if tensor else FLOATING)
        counts = collections.Counter(turn)
        busy = counts[HMMA] * HMMA_CYCLES.get(arch, HOPPER_HMMA_CYCLES)
        if counts[HGMMA]:  # m64nNk16: 64 N 16 / 4 products for each scheduler, N from the kernel's name
            columns = 256 if "ELi256" in kernel else 128
            busy = counts[HGMMA] * 64 * columns * 16 / 4 / 512
        own, schedulers = own_bytes(name, only, counts[HMMA])
        row = {"kernel": name + ("" if only is None else f" of {TYPES[only][0]}"), "code_bytes": 16 * code.n, **usage[kernel],
               "issue": len(turn), "tensor": round(busy), "memory": round(own / schedulers / (memory / multiprocessors / 4 / clock)),
               "mma": counts[HMMA] + counts[HGMMA], "ldmatrix": counts[LDSM], "copies": counts[LDGSTS],
               "spilled_in_turn": counts[STL] + counts[LDL], "spilled": sum(o in (STL, LDL) for o in code.operations)}
        row["binds"] = max(("tensor", "memory", "issue"), key=lambda what: row[what])
        row["judged"] = tensor and is_launched(name, arch)
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--arch", default="90a", choices=GPUS)
    parser.add_argument("--source", default=repository, help="another checkout, to compare with")
    parser.add_argument("--cubins", help="where compiled code is kept and looked for")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("files", nargs="*", default=["gemm", "gemm_few_rows", "gemm_wgmma", "gemm_tma", "adapter_gradient", "attention_forward", "attention_backward", "matvec", "dequantize"])
    arguments = parser.parse_args()
    if not shutil.which("nvcc"):
        print("cuda_instructions: there is no nvcc on the PATH; nothing was counted")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.cubins or temporary
        os.makedirs(folder, exist_ok=True)
        rows = []
        for name in arguments.files:
            for only in [None] + (list(TYPES) if name in ("gemm", "gemm_few_rows") else []):
                rows += measure(*compile_one(name, arguments.arch, arguments.source, folder, only), arguments.arch, only)
    judged = [row for row in rows if row["judged"]]
    slow = [row["kernel"] for row in judged if row["binds"] == "issue"]
    spilling = [row["kernel"] for row in judged if row["spilled"]]
    if arguments.json:
        json.dump(rows, sys.stdout, indent=1)
    else:
        print(f"sm_{arguments.arch}\n")
        print("| kernel | registers | spilled in a turn | outside | code KB | issue | tensor | memory | binds | mma | ldmatrix | copies |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: |")
        for row in rows:
            binds = row["binds"] if row["judged"] else "not launched here" if row["tensor"] else ""
            print(f"| {row['kernel']} | {row['registers']} | {row['spilled_in_turn']} | "
                  f"{row['spilled'] - row['spilled_in_turn']} | {row['code_bytes'] / 1024:.0f} | {row['issue']} | "
                  f"{row['tensor'] or ''} | {row['memory'] or ''} | {binds} | {row['mma'] or ''} | {row['ldmatrix'] or ''} | {row['copies'] or ''} |")
    for what, kernels in (("issue more than their tensor cores or their memory take", slow), ("spill registers", spilling)):
        for kernel in kernels:
            print(f"cuda_instructions: {kernel}: one of those that {what}", file=sys.stderr)
    if slow or spilling:
        sys.exit(1)


if __name__ == "__main__":
    main()
