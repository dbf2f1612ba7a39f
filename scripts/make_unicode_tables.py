#!/usr/bin/env python3
"""Writes native/src/tokenizer/unicode_data.cpp, the character properties that the pre-tokenizers ask for.

    scripts/make_unicode_tables.py

The tables follow Unicode 15.1, as llama.cpp's do: another version gives other token ids to text that uses the newest
letters. Python 3.13 carries that version.
"""
import sys
import unicodedata
from pathlib import Path

UNICODE_VERSION = "15.1.0"
OUTPUT = Path(__file__).resolve().parent.parent / "native/src/tokenizer/unicode_data.cpp"
CODE_POINTS = 0x110000

# The bits of lorica::CharacterClass in unicode.h.
CLASS_OF_CATEGORY = {"L": 0x01, "N": 0x02, "P": 0x04, "S": 0x08, "M": 0x10}
CLASS_OF_SUBCATEGORY = {"Lu": 0x80, "Lt": 0x80, "Ll": 0x100, "Mn": 0x200}
WHITE_SPACE, CONTROL = 0x20, 0x40
CLASS_BITS = 10

# The property White_Space (PropList.txt), which Python does not expose: str.isspace() adds U+001C to U+001F.
WHITE_SPACE_CODES = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
                     0x205F, 0x3000}


def class_of(code):
    category = unicodedata.category(chr(code))
    bits = CLASS_OF_CATEGORY.get(category[0], 0) | CLASS_OF_SUBCATEGORY.get(category, 0)
    if category[0] == "C" and category != "Cn":
        bits |= CONTROL
    if code in WHITE_SPACE_CODES:
        bits |= WHITE_SPACE
    return bits


def runs_of(value_of, bits):
    runs, previous = [], None
    for code in range(CODE_POINTS):
        value = value_of(code)
        if value != previous:
            runs.append(code << bits | value)
            previous = value
    return runs


def lower_pairs():
    """Simple lower-casing: the first character of the full mapping."""
    pairs = ((code, ord(chr(code).lower()[0])) for code in range(CODE_POINTS))
    return [pair for pair in pairs if pair[0] != pair[1]]


def decompositions():
    """Canonical decompositions by one step, as {from, first, second or 0}."""
    found = []
    for code in range(CODE_POINTS):
        fields = unicodedata.decomposition(chr(code)).split()
        if fields and not fields[0].startswith("<"):
            parts = [int(field, 16) for field in fields]
            found.append((code, parts[0], parts[1] if len(parts) > 1 else 0))
    return found


def compositions():
    """Those that are undone by composition, as {first, second, to}."""
    return sorted((first, second, code) for code, first, second in decompositions()
                  if second and unicodedata.normalize("NFC", chr(first) + chr(second)) == chr(code))


def lines(items, per_line):
    for i in range(0, len(items), per_line):
        yield "    " + " ".join(item + "," for item in items[i:i + per_line])


def main():
    if unicodedata.unidata_version != UNICODE_VERSION:
        sys.exit(f"this Python has Unicode {unicodedata.unidata_version}, but the tables are made from "
                 f"{UNICODE_VERSION}: run the script with Python 3.13")
    out = [
        f"// Made by scripts/make_unicode_tables.py from Unicode {UNICODE_VERSION}. Not edited by hand.",
        '#include "tokenizer/unicode_data.h"',
        "",
        "namespace lorica {",
    ]
    def triples(items):
        return [f"{{0x{x:x}, 0x{y:x}, 0x{z:x}}}" for x, y, z in items]

    tables = [
        ("uint32_t", "class_runs", [f"0x{run:x}" for run in runs_of(class_of, CLASS_BITS)], 12),
        ("uint32_t", "combining_runs",
         [f"0x{run:x}" for run in runs_of(lambda code: unicodedata.combining(chr(code)), 8)], 12),
        ("CharacterPair", "lower_pairs", [f"{{0x{a:x}, 0x{b:x}}}" for a, b in lower_pairs()], 6),
        ("CharacterTriple", "decompositions", triples(decompositions()), 4),
        ("CharacterTriple", "compositions", triples(compositions()), 4),
    ]
    for kind, name, items, per_line in tables:
        out += ["", f"static constexpr {kind} {name}_data[] = {{", *lines(items, per_line), "};",
                f"constinit const std::span<const {kind}> {name} = {name}_data;"]
    out += ["", "}  // namespace lorica", ""]
    OUTPUT.write_text("\n".join(out))


if __name__ == "__main__":
    main()
