#!/usr/bin/env bash
# From a fresh clone to a fine-tuned model: builds what is missing, then trains a LoRA for the small embedded model on
# questions and answers about Pride and Prejudice, and asks it the same question before and after.
# Arguments are options of `lorica train`; one that is given replaces the one below.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

if ! program_is_current; then
    use_toolchain "$@"
    build_program
fi

options=("$@")
default() { # default OPTION VALUE: unless the option was given
    local option
    for option in "${options[@]}"; do
        case $option in "$1" | "$1"=*) return 0 ;; esac
    done
    options+=("$@")
}
default --model "$checkout/models/austen-7m-q4_0.gguf"
default --data "$checkout/models/data/pride_and_prejudice_train.json"
default --eval-data "$checkout/models/data/pride_and_prejudice_eval.json"
default --output "$build/quickstart"
default --ask "Who is Mr. Collins?"
default --target-modules all-linear
default --lora-r 16
default --lora-alpha 32
default --epochs 3
default --batch-size 8
default --learning-rate 1e-3
run_program train "${options[@]}"
