#!/usr/bin/env python3
"""Reads the event files of a training run with TensorBoard itself and compares them with its JSONL log.

    scripts/check_tensorboard.py ADAPTER_FOLDER

Development only; needs the package tensorboard. Exit status 1 when something differs.
"""
import json
import math
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

NAMES = {
    "train/loss": "loss",
    "train/grad_norm": "grad_norm",
    "train/learning_rate": "learning_rate",
    "train/epoch": "epoch",
    "train/tokens_per_second": "tokens_per_second",
    "eval/loss": "eval_loss",
    "eval/perplexity": "eval_perplexity",
}


def main(folder: pathlib.Path) -> int:
    records = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
    runs = sorted({file.parent for file in (folder / "runs").glob("*/events.out.tfevents.*")})
    if len(runs) != 1:
        print(f"{folder}/runs has {len(runs)} runs; this compares one")
        return 1
    events = EventAccumulator(str(runs[0]), size_guidance={"scalars": 0})
    events.Reload()
    tags = set(events.Tags()["scalars"])
    wrong = sorted(tags - NAMES.keys())
    for tag, key in NAMES.items():
        logged = [(r["step"], r[key]) for r in records if key in r and (key != "epoch" or "loss" in r)]
        shown = [(e.step, e.value) for e in events.Scalars(tag)] if tag in tags else []
        same = len(logged) == len(shown) and all(
            a[0] == b[0] and math.isclose(a[1], b[1], rel_tol=1e-6, abs_tol=1e-30) for a, b in zip(logged, shown)
        )
        print(f"{tag:26} {len(shown):5} values, " + ("as in the log" if same else f"NOT the {len(logged)} of the log"))
        wrong += [] if same else [tag]
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1])))
