#!/usr/bin/env python3
"""Steps of preference objectives next to those of plain fine-tuning, on as many sequences: memory and speed.

    scripts/bench_objectives.py MODEL.gguf [--objectives dpo orpo] [--steps 12] [--runs 2]

The answers of both kinds of run are the same ones of models/data: pairs of a question's own answer and of the next
question's, or each of them as an example. Runs of both come by turns, and of each the fastest counts. Prints a table of
the planned memory and of the tokens per second, each divided by those of plain fine-tuning. Needs a built checkout.
"""
import argparse
import json
import subprocess
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = REPOSITORY / "models/data/pride_and_prejudice_train.json"
PAIRS_AT_ONCE = 2


def write_data(folder, pairs):
    records = json.loads(DATA.read_text())[:pairs + 1]
    both = list(zip(records, records[1:]))
    (folder / "pairs.json").write_text(json.dumps(
        [{"prompt": own["question"], "chosen": own["answer"], "rejected": other["answer"]} for own, other in both]))
    (folder / "single.json").write_text(json.dumps(
        [{"question": own["question"], "answer": answer} for own, other in both
         for answer in (own["answer"], other["answer"])]))


def run(arguments, folder, objective):
    plain = objective == "sft"
    command = [REPOSITORY / "scripts/lorica", "train", "--json", "--overwrite", "--report-to", "none",
               "--model", arguments.model, "--data", folder / ("single.json" if plain else "pairs.json"),
               "--objective", objective, "--batch-size", (2 if plain else 1) * PAIRS_AT_ONCE,
               "--max-steps", arguments.steps, "--output", folder / "adapter"]
    done = subprocess.run(list(map(str, command)), capture_output=True, check=True, text=True)
    result = json.loads(done.stdout)
    return result["planned_memory_bytes"]["total"], result["tokens"] / result["seconds"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--objectives", nargs="+", default=["dpo", "orpo", "simpo"])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--runs", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, PAIRS_AT_ONCE * arguments.steps)
        names = ["sft", *arguments.objectives]
        found = {objective: [] for objective in names}
        for _ in range(arguments.runs):
            for objective in names:
                found[objective].append(run(arguments, folder, objective))
    memory = {objective: runs[0][0] for objective, runs in found.items()}
    speed = {objective: max(tokens for _, tokens in runs) for objective, runs in found.items()}
    print("| Objective | Planned memory | Tokens per second |\n| --- | --- | --- |")
    for objective in names:
        print(f"| `{objective}` | {memory[objective] / memory['sft']:.2f} | {speed[objective] / speed['sft']:.2f} |")


if __name__ == "__main__":
    main()
