#!/usr/bin/env python3
"""What `lorica generate --prompts` gains by generating many texts at once: the same questions one by one and at once, taking turns,
so that what else the machine does falls on both alike. Prints tokens per second of each and their quotient.

    scripts/bench_prompts.py models/austen-7m-q4_0.gguf
    scripts/bench_prompts.py --prompts 16 --max-tokens 128 --rounds 5 --least 3 llama.gguf
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

LORICA = pathlib.Path(__file__).resolve().parent / "lorica"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--prompts", type=int, default=16, help="questions, all of them at once")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--least", type=float, help="fail where the quotient is below this")
    parser.add_argument("options", nargs="*", help="of lorica generate, behind --")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        prompts = pathlib.Path(folder, "prompts.jsonl")
        prompts.write_text("".join(json.dumps({"prompt": f"Who is number {i}, and what do they say?"}) + "\n" for i in range(arguments.prompts)))

        def speed(batch_size, number):
            command = [str(LORICA), "generate", "--model", str(arguments.model), "--prompts", str(prompts)]
            command += ["--output", str(pathlib.Path(folder, f"{batch_size}-{number}.jsonl")), "--batch-size", str(batch_size)]
            command += ["--max-tokens", str(arguments.max_tokens), "--json", *arguments.options]
            return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)["tokens_per_second"]

        rounds = [(speed(1, i), speed(arguments.prompts, i)) for i in range(arguments.rounds)]
    one, many = (statistics.median(values) for values in zip(*rounds))
    gain = statistics.median(at_once / alone for alone, at_once in rounds)
    print(f"one by one {one:.0f} tok/s, {arguments.prompts} at once {many:.0f} tok/s: {gain:.2f} times (median of {arguments.rounds} rounds)")
    if arguments.least and gain < arguments.least:
        sys.exit(f"less than {arguments.least} times")


if __name__ == "__main__":
    main()
