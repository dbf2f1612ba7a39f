#!/usr/bin/env python3
"""What llama.cpp's llama-bench measures, with a libllama.so alone: prompt processing and generation, in tokens per second.

    scripts/llama_bench.py LIBLLAMA -m MODEL.gguf -t THREADS -p PROMPT -n GENERATE [-r REPETITIONS] -o json

As llama-bench does: random tokens, a warm-up, an empty context before each test, each token of a generation on its own. LIBLLAMA has its
libggml*.so beside it, as in the npm package @node-llama-cpp/linux-x64 (npm pack, then package/bins/linux-x64). Prints the fields of
llama-bench's JSON that scripts/bench_peers.py reads.
"""
import argparse
import ctypes
import json
import pathlib
import random
import statistics
import sys
import time


class Opaque(ctypes.Structure):
    """A struct of parameters that stays as the library's defaults have it, with room for what newer releases add."""
    _fields_ = [("bytes", ctypes.c_uint8 * 512)]


class ContextParams(ctypes.Structure):
    """llama.h, llama_context_params: its first fields, and room for the rest."""
    _fields_ = [("n_ctx", ctypes.c_uint32), ("n_batch", ctypes.c_uint32), ("n_ubatch", ctypes.c_uint32), ("n_seq_max", ctypes.c_uint32),
                ("rest", ctypes.c_uint8 * 496)]


class Batch(ctypes.Structure):
    """llama.h, llama_batch"""
    _fields_ = [("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embd", ctypes.c_void_p), ("pos", ctypes.c_void_p),
                ("n_seq_id", ctypes.c_void_p), ("seq_id", ctypes.c_void_p), ("logits", ctypes.c_void_p)]


class Llama:
    def __init__(self, library, model, threads, n_ctx):
        folder = pathlib.Path(library).resolve().parent
        self.base = ctypes.CDLL(str(folder / "libggml-base.so"), mode=ctypes.RTLD_GLOBAL)
        ggml = ctypes.CDLL(str(next(path for path in sorted(folder.glob("libggml*.so")) if path.name.startswith(("libggml.so", "libggml.v")))),
                           mode=ctypes.RTLD_GLOBAL)
        self.llama = llama = ctypes.CDLL(str(pathlib.Path(library).resolve()))
        silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        self.keep = (ggml, silent)
        llama.llama_log_set(silent, None)
        # Picks the processor's best variant of libggml-cpu.
        ggml.ggml_backend_load_all_from_path(str(folder).encode())
        llama.llama_model_default_params.restype = Opaque
        llama.llama_model_load_from_file.argtypes = [ctypes.c_char_p, Opaque]
        llama.llama_model_load_from_file.restype = ctypes.c_void_p
        llama.llama_context_default_params.restype = ContextParams
        llama.llama_init_from_model.argtypes = [ctypes.c_void_p, ContextParams]
        llama.llama_init_from_model.restype = ctypes.c_void_p
        llama.llama_set_n_threads.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32]
        llama.llama_get_memory.argtypes = [ctypes.c_void_p]
        llama.llama_get_memory.restype = ctypes.c_void_p
        llama.llama_memory_clear.argtypes = [ctypes.c_void_p, ctypes.c_bool]
        llama.llama_synchronize.argtypes = [ctypes.c_void_p]
        llama.llama_batch_get_one.restype = Batch
        llama.llama_batch_get_one.argtypes = [ctypes.POINTER(ctypes.c_int32), ctypes.c_int32]
        llama.llama_decode.argtypes = [ctypes.c_void_p, Batch]
        llama.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
        llama.llama_model_get_vocab.restype = ctypes.c_void_p
        llama.llama_vocab_n_tokens.argtypes = [ctypes.c_void_p]
        self.model = llama.llama_model_load_from_file(str(model).encode(), llama.llama_model_default_params())
        if not self.model:
            sys.exit(f"{library} cannot load {model}")
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, 2048, 512  # llama-bench's defaults
        self.context = llama.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit(f"{library} cannot make a context for {model}")
        llama.llama_set_n_threads(self.context, threads, threads)
        self.n_vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))

    def clear(self):
        self.llama.llama_memory_clear(self.llama.llama_get_memory(self.context), False)

    def eval(self, n):
        tokens = (ctypes.c_int32 * n)(*(random.randrange(self.n_vocab) for _ in range(n)))
        if self.llama.llama_decode(self.context, self.llama.llama_batch_get_one(tokens, n)) != 0:
            sys.exit("llama_decode failed")
        self.llama.llama_synchronize(self.context)

    def seconds(self, n_prompt, n_generate):
        self.clear()
        begin = time.perf_counter()
        if n_prompt:
            self.eval(n_prompt)
        for _ in range(n_generate):
            self.eval(1)
        return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", metavar="LIBLLAMA")
    parser.add_argument("-m", required=True, metavar="MODEL")
    parser.add_argument("-t", type=int, required=True, metavar="THREADS")
    parser.add_argument("-p", type=int, required=True, metavar="PROMPT")
    parser.add_argument("-n", type=int, required=True, metavar="GENERATE")
    parser.add_argument("-r", type=int, default=5, metavar="REPETITIONS")
    parser.add_argument("-o", choices=["json"], default="json")
    options = parser.parse_args()
    llama = Llama(options.library, options.m, options.t, options.p + options.n)
    results = []
    for n_prompt, n_generate in [(options.p, 0), (0, options.n)]:
        llama.seconds(n_prompt, min(n_generate, 1))
        speeds = [(n_prompt + n_generate) / llama.seconds(n_prompt, n_generate) for _ in range(options.r)]
        results.append({"n_prompt": n_prompt, "n_gen": n_generate, "avg_ts": statistics.mean(speeds), "samples_ts": speeds})
    json.dump(results, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
