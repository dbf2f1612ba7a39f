#!/usr/bin/env bash
# From a fresh clone to a fine-tuned model: builds what is missing, asks the small embedded model a question, trains a LoRA
# on questions and answers about Pride and Prejudice, and asks again. Arguments are passed on to `lorica train`.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

model=$checkout/models/austen-7m-q4_0.gguf
data=$checkout/models/data/pride_and_prejudice_train.json
adapter=$build/quickstart
question="Who is Mr. Collins?"

lorica() { "$checkout/scripts/lorica" "$@"; }
ask() { lorica generate --model "$model" --instruction "$question" --max-tokens 48 --temperature 0 "$@"; }

if ! program_is_current; then
    use_toolchain "$@"
    build_program
fi

printf '\nBefore: %s\n' "$question"
ask
printf '\n'
lorica train --model "$model" --data "$data" --output "$adapter" --lora-r 16 --lora-alpha 32 \
    --target-modules all-linear --epochs 3 --batch-size 8 --learning-rate 1e-3 "$@"
printf '\nAfter: %s\n' "$question"
ask --adapter "$adapter"
