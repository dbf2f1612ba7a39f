#!/usr/bin/env bash
# From a fresh clone to a fine-tuned model: builds what is missing, then trains a LoRA for the small embedded model on
# questions and answers about Pride and Prejudice, and asks it the same question before and after.
# Building downloads what README.md names; model and data are in the repository.
# Arguments are options of `lorica train`; one that is given replaces the one below.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if ! program_is_current; then
    use_toolchain "$@"
    build_program
fi

overwrite=true # what an earlier quickstart made; a folder of yours is not written over unasked
for argument in "$@"; do
    case $argument in --output* | -o*) overwrite=false ;; esac
done
cat >"$build/quickstart.yaml" <<YAML
model: "$checkout/models/austen-7m-q4_0.gguf"
data: "$checkout/models/data/pride_and_prejudice_train.json"
eval-data: "$checkout/models/data/pride_and_prejudice_eval.json"
output: "$build/quickstart"
overwrite: $overwrite
ask: "Who is Mr. Collins?"
target-modules: all-linear
lora-r: 16
lora-alpha: 32
epochs: 3
batch-size: 8
learning-rate: 1e-3
YAML
run_program train --config "$build/quickstart.yaml" "$@"
