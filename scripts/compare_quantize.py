#!/usr/bin/env python3
"""Quantizes models with `lorica quantize` and with llama.cpp's own llama_model_quantize, and compares the files tensor by tensor:
types and bytes, and where any differ the perplexity of a text under both, as `lorica eval --text` has it.

    scripts/compare_quantize.py LIBLLAMA TEXT MODEL...

LIBLLAMA is a libllama.so with its libggml*.so beside it, such as the one in the npm package @node-llama-cpp/linux-x64
(npm pack @node-llama-cpp/linux-x64, package/bins/linux-x64). MODEL is a GGUF file in F32, F16 or BF16; of a model with a tied output a
copy with an output of its own is made and compared too. Needs gguf and numpy.
"""
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import gguf

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
    base = ctypes.CDLL(str(path.parent / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
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
