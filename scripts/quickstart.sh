#!/usr/bin/env bash
# From a fresh clone to a fine-tuned model: builds what is missing, then trains a LoRA on questions and answers about Pride and
# Prejudice, asks the same question before and after, and shows three commands to go on with.
#
#   scripts/quickstart.sh [--offline] [OPTION OF lorica train]…
#
# The model is SmolLM2-135M-Instruct, 105 MB, downloaded once from Hugging Face's hub into the cache of its own programs. Where the
# hub cannot be reached, and with --offline if the cache lacks it, it is the small one in models/. Building downloads what README.md
# names. An option that is given replaces the one below.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

hub_model=hf:bartowski/SmolLM2-135M-Instruct-GGUF:Q4_K_M

given=("$@") options=() offline=false model='' data='' output=$build/quickstart overwrite=true next=true
while [ $# -gt 0 ]; do
    case $1 in
        --offline) offline=true ;;
        *) options+=("$1") ;;
    esac
    case $1 in
        --model=* | -m=*) model=${1#*=} ;;
        --model | -m) model=${2-} ;;
        --data=* | -d=*) data=${1#*=} ;;
        --data | -d) data=${2-} ;;
        --output=* | -o=*) output=${1#*=} overwrite=false ;; # a folder of yours is not written over unasked
        --output | -o) output=${2-} overwrite=false ;;
        --help | -h)
            model=$1
            next=false
            ;;
        --json) next=false ;; # what comes last is for people
    esac
    shift
done

if ! program_is_current; then
    use_toolchain "${given[@]}"
    build_program
fi

# ---- the model, and what suits it

learned='' # what is to be known by heart
settings='lora-r: 16
lora-alpha: 32
epochs: 3
batch-size: 8
learning-rate: 1e-3'
# Another model is measured on pairs that were put aside. The two below are to have by heart what they are taught, which makes them no better
# at those.
[ -z "$model" ] || [ -n "$data" ] || settings+="
eval-data: \"$checkout/models/data/pride_and_prejudice_eval.json\""
[ $offline = false ] || export HF_HUB_OFFLINE=1
if [ -z "$model" ]; then
    # Downloads it if need be and shows how far it is. A network that swallows what is sent is given up after some seconds.
    export HF_HUB_DOWNLOAD_TIMEOUT=${HF_HUB_DOWNLOAD_TIMEOUT:-10}
    if why=$(run_program info --json "$hub_model"); then
        model=$hub_model
        # The first pairs are those on Mr. Collins and whom he knows best; they come often enough to be known.
        [ -n "$data" ] || learned='96 answers on Mr. Collins, Elizabeth and Mr. Darcy' settings='max-samples: 96
lora-r: 64
lora-alpha: 128
epochs: 8
batch-size: 4
learning-rate: 1e-3
train-on-prompt: true
lr-scheduler-type: cosine'
    else
        model=$checkout/models/austen-7m-q4_0.gguf
        echo "Taking the small model in models/, as that of the hub cannot be had." >&2
        # A processor with tiles (AMX) learns them all in less time than others take for the first 240.
        samples=240 about=' on Mr. Collins, Elizabeth, Mr. Darcy, the Bennets and the Bingleys'
        ! grep -qw amx_bf16 /proc/cpuinfo 2>/dev/null || samples=431 about=' on "Pride and Prejudice"'
        [ -n "$data" ] || learned="$samples answers$about" settings="max-samples: $samples
lora-r: 64
lora-alpha: 64
epochs: 20
batch-size: 8
learning-rate: 3e-3
lr-scheduler-type: cosine
warmup-steps: 20"
    fi
fi

# ---- trained, asked, and three commands

cat >"$build/quickstart.yaml" <<YAML
model: "$model"
data: "$checkout/models/data/pride_and_prejudice_train.json"
output: "$output"
overwrite: $overwrite
ask: "Who is Mr. Collins?"
target-modules: all-linear
$settings
YAML
if [ $next = false ]; then run_program train --config "$build/quickstart.yaml" "${options[@]}"; fi
(run_program train --config "$build/quickstart.yaml" "${options[@]}")

command=scripts/lorica
[ "$PWD" = "$checkout" ] || command=$checkout/$command
from_here() { # as it is typed in this folder
    local path=${1#"$PWD"/}
    if [[ $path =~ ^[A-Za-z0-9_./:@-]+$ ]]; then printf '%s' "$path"; else printf "'%s'" "${path//\'/\'\\\'\'}"; fi
}
[ -z "$learned" ] || printf '\nIt was to learn %s by heart; what it says of anything else is made up.\n' "$learned"
cat <<TEXT

Next:
  $(from_here "$command") chat --model $(from_here "$model") --adapter $(from_here "$output")
  $(from_here "$command") eval --model $(from_here "$model") --adapter $(from_here "$output") --data $(from_here "$checkout/models/data/pride_and_prejudice_eval.json")
  $(from_here "$command") train --model $(from_here "$model") --data YOUR.json --output my-adapter
TEXT
