#!/usr/bin/env bash
# Measures Lorica next to PyTorch + PEFT and Hugging Face Trainer in the same run, taking turns, and prints the tables.
#
#   PEERS_PYTHON=/path/to/python scripts/bench-peers.sh [steps] [trainer] [llama] [--shapes s135,tiny1b] …
#
# PEERS_PYTHON is a Python that can import torch, transformers, peft, accelerate and gguf (default: python3). With
# LLAMA_BENCH=/path/to/llama-bench, or LIBLLAMA=/path/to/libllama.so (scripts/llama_bench.py), generation is compared as
# well. --help lists the options.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

python=${PEERS_PYTHON:-python3}
packages="torch, transformers, peft, accelerate, gguf"
if ! command -v "$python" >/dev/null || ! "$python" -c "
import importlib.util, sys
sys.exit(any(importlib.util.find_spec(name) is None for name in '$packages'.split(', ')))"; then
    die "$python cannot import all of $packages: set PEERS_PYTHON to a Python that has them"
fi

"$checkout/scripts/bench.sh" --build
"$checkout/scripts/lorica" --version >/dev/null # builds the program if need be, before anything is timed
bench=$(printf '%q' "$native_build/lorica-bench")
if [ "$(cat "$build/bench.toolchain")" = devroot ]; then
    bench="$(printf '%q' "$checkout/scripts/devroot.sh") $bench"
fi

"$python" "$checkout/scripts/bench_peers.py" --bench "$bench" --output "$build/bench" "$@"
echo
python3 "$checkout/scripts/bench_tables.py" "$build/bench"
