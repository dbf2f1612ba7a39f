#!/usr/bin/env python3
"""Pairs of a short and a long answer, made of questions with answers of several sentences: the first sentence is the
better one, the whole answer the worse.

    scripts/make_pairs.py models/data/pride_and_prejudice_train.json > pairs.jsonl
"""
import json
import re
import sys
from pathlib import Path

BETWEEN_SENTENCES = re.compile(r"(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<=[.!?]) +(?=[A-Z])")


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    for record in json.loads(Path(sys.argv[1]).read_text()):
        first, *others = BETWEEN_SENTENCES.split(record["answer"])
        if others:
            pair = {"prompt": record["question"], "chosen": first, "rejected": record["answer"]}
            print(json.dumps(pair, ensure_ascii=False))


if __name__ == "__main__":
    main()
