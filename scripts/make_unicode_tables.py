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
WHITE_SPACE, CONTROL = 0x20, 0x40

# The property White_Space (PropList.txt), which Python does not expose: str.isspace() adds U+001C to U+001F.
WHITE_SPACE_CODES = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
                     0x205F, 0x3000}
HANGUL_SYLLABLES = range(0xAC00, 0xD7A4)  # decomposed by rule in unicode.cpp


def class_of(code):
    category = unicodedata.category(chr(code))
    bits = CLASS_OF_CATEGORY.get(category[0], 0)
    if category[0] == "C" and category != "Cn":
        bits |= CONTROL
    if code in WHITE_SPACE_CODES:
        bits |= WHITE_SPACE
    return bits


def class_runs():
    runs, previous = [], None
    for code in range(CODE_POINTS):
        bits = class_of(code)
        if bits != previous:
            runs.append(code << 8 | bits)
            previous = bits
    return runs


def lower_pairs():
    """Simple lower-casing: the first character of the full mapping."""
    pairs = ((code, ord(chr(code).lower()[0])) for code in range(CODE_POINTS))
    return [pair for pair in pairs if pair[0] != pair[1]]


def base_pairs():
    """The first character of the canonical decomposition, where there is one."""
    pairs = ((code, ord(unicodedata.normalize("NFD", chr(code))[0]))
             for code in range(CODE_POINTS) if code not in HANGUL_SYLLABLES)
    return [pair for pair in pairs if pair[0] != pair[1]]


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
    tables = [
        ("uint32_t", "class_runs", [f"0x{run:x}" for run in class_runs()], 12),
        ("CharacterPair", "lower_pairs", [f"{{0x{a:x}, 0x{b:x}}}" for a, b in lower_pairs()], 6),
        ("CharacterPair", "base_pairs", [f"{{0x{a:x}, 0x{b:x}}}" for a, b in base_pairs()], 6),
    ]
    for kind, name, items, per_line in tables:
        out += ["", f"static constexpr {kind} {name}_data[] = {{", *lines(items, per_line), "};",
                f"constinit const std::span<const {kind}> {name} = {name}_data;"]
    out += ["", "}  // namespace lorica", ""]
    OUTPUT.write_text("\n".join(out))


if __name__ == "__main__":
    main()
