#!/usr/bin/env python3
"""A reward for `lorica train --objective grpo`: 1 for an answer of at most ten words, less for longer ones, 0 for one
that was cut off.

Reads a JSON object per line, as --reward-command has it, and writes a number for each.
"""
import json
import sys

for line in sys.stdin:
    answer = json.loads(line)
    words = len(answer["completion"].split())
    print(min(1, 10 / max(1, words)) if answer["ended"] else 0)
