#!/usr/bin/env python3
"""Quantizes models with `lorica quantize` and with llama.cpp's own llama_model_quantize, and compares the files tensor by tensor:
types and bytes, and where any differ the perplexity of a text under both, as `lorica eval --text` has it.

    scripts/compare_quantize.py LIBLLAMA TEXT MODEL...

LIBLLAMA is a libllama.so with its libggml*.so beside it, such as the one in the npm package @node-llama-cpp/linux-x64
(npm pack @node-llama-cpp/linux-x64, package/bins/linux-x64; its name may end in a version). MODEL is a GGUF file in F32, F16 or BF16, or
`gpt2` or `gptneox`: 16 layers of random numbers. Of a model with a tied output a copy with an output of its own is made and compared
too. Needs gguf and numpy.
"""
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
# llama.h, enum llama_ftype
TYPES = {"Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14,
         "Q5_K_S": 16, "IQ4_NL": 25, "IQ4_XS": 30}


class Params(ctypes.Structure):
    """llama_model_quantize_params: its first fields, and room for the rest."""
    _fields_ = [("nthread", ctypes.c_int32), ("ftype", ctypes.c_int32), ("output_tensor_type", ctypes.c_int32),
                ("token_embedding_type", ctypes.c_int32), ("rest", ctypes.c_uint8 * 240)]


def load_llama(path):
    path = pathlib.Path(path).resolve()
    base = [ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            for library in sorted(path.parent.glob("libggml*.so"), key=lambda library: "base" not in library.name)
            if "cpu" not in library.name]
    llama = ctypes.CDLL(str(path))
    llama.llama_model_quantize_default_params.restype = Params
    llama.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Params)]
    llama.llama_model_quantize.restype = ctypes.c_uint32
    # Its log is long; errors are seen by what is missing.
    silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    llama.llama_log_set(silent, None)
    llama.keep = (base, silent)
    return llama


def quantize_with_llama(llama, source, target, name):
    params = llama.llama_model_quantize_default_params()
    params.ftype = TYPES[name]
    if llama.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) != 0:
        sys.exit(f"llama.cpp cannot make {name} of {source}")


def lorica(*arguments):
    run = subprocess.run([os.environ.get("LORICA", ROOT / "scripts/lorica"), *map(str, arguments)], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(run.stderr)
    return run.stdout


def perplexity(model, text):
    return json.loads(lorica("eval", "--model", model, "--text", text, "--json"))["base"]["text_perplexity"]


def compare(ours, theirs):
    """(tensors, of another type, of other bytes)"""
    a = {t.name: t for t in gguf.GGUFReader(ours).tensors}
    b = {t.name: t for t in gguf.GGUFReader(theirs).tensors}
    if a.keys() != b.keys():
        sys.exit(f"other tensors: {a.keys() ^ b.keys()}")
    other_type = [n for n in a if a[n].tensor_type != b[n].tensor_type]
    other_bytes = [n for n in a if n not in other_type and a[n].data.tobytes() != b[n].data.tobytes()]
    for name in other_type:
        print(f"    {name}: {a[name].tensor_type.name}, llama.cpp {b[name].tensor_type.name}")
    return len(a), len(other_type), len(other_bytes)


def random_model(architecture, path):
    n_layer, n_embd, n_ff, n_vocab, n_ctx = 16, 256, 512, 288, 64
    rng = np.random.default_rng(3)
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in {"context_length": n_ctx, "embedding_length": n_embd, "feed_forward_length": n_ff, "block_count": n_layer,
                       "attention.head_count": 4}.items():
        writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_float32(f"{architecture}.attention.layer_norm_epsilon", 1e-5)
    if architecture == "gptneox":
        writer.add_uint32("gptneox.rope.dimension_count", 16)
        writer.add_bool("gptneox.use_parallel_residual", True)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"t{i}" for i in range(n_vocab)])
    writer.add_token_types([1] * n_vocab)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)

    def add(name, *shape):
        is_f32 = len(shape) == 1 or name.startswith("position")
        writer.add_tensor(name, (0.05 * rng.standard_normal(shape)).astype(np.float32 if is_f32 else np.float16))

    def norm(name):
        add(name + ".weight", n_embd)
        add(name + ".bias", n_embd)

    add("token_embd.weight", n_vocab, n_embd)
    if architecture == "gpt2":
        add("position_embd.weight", n_ctx, n_embd)
    else:
        add("output.weight", n_vocab, n_embd)
    norm("output_norm")
    for layer in range(n_layer):
        block = f"blk.{layer}."
        for name, rows, columns in (("attn_qkv", 3 * n_embd, n_embd), ("attn_output", n_embd, n_embd), ("ffn_up", n_ff, n_embd),
                                    ("ffn_down", n_embd, n_ff)):
            add(block + name + ".weight", rows, columns)
            add(block + name + ".bias", rows)
        norm(block + "attn_norm")
        norm(block + "ffn_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def untied(source, target):
    """A copy of a tied model in which the output is a tensor of its own."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.get_field("general.architecture").contents())
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            sub = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub)
    for tensor in reader.tensors:
        for name in [tensor.name] + (["output.weight"] if tensor.name == "token_embd.weight" else []):
            writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    llama, text = load_llama(sys.argv[1]), sys.argv[2]
    worse = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        models = []
        for path in map(pathlib.Path, sys.argv[3:]):
            if path.name in ("gpt2", "gptneox"):
                path = folder / f"{path.name}.gguf"
                random_model(path.stem, path)
            tied = all(t.name != "output.weight" for t in gguf.GGUFReader(path).tensors)
            models.append((path.stem + (", tied" if tied else ""), path))
            if tied:
                untied(path, folder / "untied.gguf")
                models.append((path.stem + ", untied", (folder / "untied.gguf").rename(folder / (path.stem + "-untied.gguf"))))
        print("| Model | Type | Tensors | Other type | Other bytes | Perplexity | llama.cpp's |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
        for title, model in models:
            for name in TYPES:
                ours, theirs = folder / "ours.gguf", folder / "theirs.gguf"
                lorica("quantize", model, ours, "--type", name, "--overwrite")
                quantize_with_llama(llama, model, theirs, name)
                n, other_type, other_bytes = compare(ours, theirs)
                same = other_type == other_bytes == 0
                mine, other = (0, 0) if same else (perplexity(ours, text), perplexity(theirs, text))
                worse |= mine > other
                perplexities = "the same tensors |" if same else f"{mine:.4f} | {other:.4f}"
                print(f"| {title} | {name} | {n} | {other_type} | {other_bytes} | {perplexities} |", flush=True)
    sys.exit("worse than llama.cpp's" if worse else 0)


if __name__ == "__main__":
    main()
