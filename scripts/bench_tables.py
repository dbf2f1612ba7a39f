#!/usr/bin/env python3
"""Prints the JSON files that lorica-bench and bench_peers.py wrote as the tables of the README's performance section.

scripts/bench_tables.py build/bench
"""

import json
import sys
from pathlib import Path


def median(summary):
    return summary.get("median") if isinstance(summary, dict) else None


def number(value, digits=1):
    return "–" if value is None else f"{value:,.{digits}f}"


def table(title, header, rows):
    if rows:
        print(f"\n**{title}**\n")
        print("| " + " | ".join(header) + " |")
        print("|" + "|".join(" --- " if i == 0 else " ---: " for i in range(len(header))) + "|")
        for row in rows:
            print("| " + " | ".join(row) + " |")


def isa(run):
    return run["machine"].get("LORICA_ISA") or run["result"]["model"]["device"].split(",")[0]


def targets(result):
    return ", ".join(result["targets"]).replace("q_proj, v_proj", "q and v")


def steps_row(run):
    r = run["result"]
    ceiling, memory = r["ceiling"], r["memory"]
    return [
        f"{r['model']['name']} {r['model']['type']}",
        isa(run),
        targets(r),
        str(r["tokens"]),
        "yes" if r["recompute"] else "no",
        number(r["tokens_per_second"]),
        number(r["gflops_4n"]),
        number(median(ceiling.get("gflops"))),
        number(median(ceiling.get("ratio")), 2),
        number(memory["peak_bytes"] / 2**20),
        number(memory["planned_bytes"] / 2**20),
    ]


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: bench_tables.py FOLDER")
    runs = {path.stem: json.loads(path.read_text()) for path in sorted(Path(sys.argv[1]).glob("*.json"))}
    of = lambda command: [run for run in runs.values() if run.get("command") == command]
    if not runs:
        sys.exit(f"{sys.argv[1]} holds no results")

    m = next(iter(runs.values()))["machine"]
    print(
        f"{m['cpu']}, {m['cores']} cores ({m.get('instruction_sets', '')}), {number(m['memory_bytes'] / 2**30)} GiB; "
        f"revision {m['revision']}, {m['date'][:10]}, load before {number(m.get('load_average_before'), 2)}"
    )

    table(
        "Training steps",
        [
            "Model",
            "Kernels",
            "LoRA on",
            "Tokens",
            "Recompute",
            "tok/s",
            "GFLOP/s (4N)",
            "oneDNN",
            "Ratio",
            "Peak MiB",
            "Plan MiB",
        ],
        [steps_row(run) for run in of("steps")],
    )
    table(
        "Products, 2N each way",
        ["Weights", "Layers", "Product", "GFLOP/s", "of oneDNN", "Not growing with rows"],
        [
            [
                kind,
                row["layers"],
                row["direction"],
                number(median(row["gflops"])),
                number(median(row.get("ratio")), 2),
                number(median(row.get("fixed_share")), 2),
            ]
            for run in of("gemm")
            for kind, rows in run["result"]["types"].items()
            if isinstance(rows, list)
            for row in rows
        ],
    )
    table(
        "oneDNN's matmul on the model's products",
        ["Model", "bf16 GFLOP/s", "f32 GFLOP/s"],
        [
            [
                run["result"]["model"]["name"],
                number(median(run["result"]["bf16"].get("gflops"))),
                number(median(run["result"]["f32"].get("gflops"))),
            ]
            for run in of("ceiling")
        ],
    )
    table(
        "Generation",
        ["Model", "Prompt tok/s", "Decode tok/s", "Weights GB/s", "Memory GB/s", "Ratio"],
        [
            [
                f"{r['model']['name']} {r['model']['type']}",
                number(median(r["prompt_tokens_per_second"])),
                number(median(r["decode_tokens_per_second"])),
                number(median(r["decode_tokens_per_second"]) * r["weight_bytes_per_token"] * 1e-9, 2),
                number(median(r["memory_bytes_per_second"]) * 1e-9, 2),
                number(median(r["ratio_to_memory"]), 2),
            ]
            for r in (run["result"] for run in of("decode"))
        ],
    )
    table(
        "Start",
        ["Model", "Examples", "Load s", "Tokenize s", "Pack s", "First step begins after s"],
        [
            [
                r["model"]["name"],
                f"{r['examples']:,}",
                number(median(r["seconds"]["1 load vocabulary"]) + median(r["seconds"]["2 load model"]), 3),
                number(median(r["seconds"]["3 tokenize"]), 3),
                number(median(r["seconds"]["4 pack"]), 3),
                number(median(r["seconds"]["until the first step begins"]), 3),
            ]
            for r in (run["result"] for run in of("start"))
        ],
    )
    for run in of("scaling"):
        r = run["result"]
        table(
            f"Cost per token by sequence length, {r['model']['name']}",
            ["Length", "µs", "to the shortest", "operations to the shortest"],
            [
                [
                    str(row["sequence_length"]),
                    number(row["seconds_per_token"] * 1e6, 2),
                    number(row["to_shortest"], 3),
                    number(row["operations_to_shortest"], 3),
                ]
                for row in r.get("by_sequence_length", [])
            ],
        )
        table(
            f"Cost per token by number of examples, {r['model']['name']}",
            ["Examples", "Data µs", "Step µs", "Fill"],
            [
                [
                    f"{row['examples']:,}",
                    number(median(row["data_seconds_per_token"]) * 1e6, 3),
                    number(median(row["step_seconds_per_token"]) * 1e6, 2),
                    number(row["fill"], 3),
                ]
                for row in r.get("by_examples", [])
            ],
        )

    table(
        "Next to PyTorch + PEFT, same tokens and targets",
        [
            "Shape",
            "LoRA on",
            "Tokens",
            "Recompute",
            "PEFT tok/s",
            "Lorica tok/s",
            "Ratio",
            "PEFT peak MiB",
            "Lorica peak MiB",
        ],
        [
            [
                r["shape"],
                targets(r),
                str(r["tokens"]),
                "yes" if r["recompute"] else "no",
                number(median(r["peft_tokens_per_second"])),
                number(median(r["lorica_tokens_per_second"])),
                number(median(r["ratio"]), 2),
                number(r["peft_peak_bytes"] / 2**20),
                number(r["lorica_peak_bytes"] / 2**20),
            ]
            for run in of("peers-steps")
            for r in [run["result"]]
        ],
    )
    table(
        "Next to Hugging Face Trainer, the tutorial's job",
        ["Model", "Epochs", "Trainer s", "Lorica s", "Ratio", "training alone", "Trainer tok/s", "Lorica tok/s"],
        [
            [
                r["model"],
                str(r["epochs"]),
                number(median(r["trainer_wall_seconds"])),
                number(median(r["lorica_wall_seconds"])),
                number(median(r["ratio"]), 2),
                number(median(r["ratio_of_training"]), 2),
                number(median(r["trainer_tokens_per_second"])),
                number(median(r["lorica_tokens_per_second"])),
            ]
            for run in of("peers-trainer")
            for r in [run["result"]]
        ],
    )
    table(
        "Next to llama-bench",
        ["Model", "llama.cpp prompt tok/s", "Lorica", "Ratio", "llama.cpp decode tok/s", "Lorica", "Ratio"],
        [
            [
                r["model"],
                number(median(r["llama_prompt"])),
                number(median(r["lorica_prompt"])),
                number(median(r["prompt_ratio"]), 2),
                number(median(r["llama_decode"])),
                number(median(r["lorica_decode"])),
                number(median(r["decode_ratio"]), 2),
            ]
            for run in of("peers-llama")
            for r in [run["result"]]
        ],
    )


if __name__ == "__main__":
    main()
