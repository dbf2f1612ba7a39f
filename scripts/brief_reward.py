#!/usr/bin/env python3
"""A reward for `lorica train --objective grpo`: 1 for an answer of at most ten words, less for longer ones.

Reads a JSON object per line, as --reward-command has it, and writes a number for each.
"""
import json
import sys

for line in sys.stdin:
    words = len(json.loads(line)["completion"].split())
    print(min(1, 10 / max(1, words)))
