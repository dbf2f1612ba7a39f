#!/usr/bin/env python3
"""Small Parquet files for the tests, written with pyarrow: scripts/make_parquet_fixtures.py FOLDER"""

import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
n = 300
table = pa.table(
    {
        "id": list(range(n)),
        "instruction": [f"Who is number {i}?" for i in range(n)],
        "input": [None if i % 2 == 0 else f"context {i}" for i in range(n)],
        "output": [f"He is “{i}”.\nIndeed." for i in range(n)],
    }
)
for codec in ("none", "snappy", "zstd", "gzip"):
    # several row groups, and texts beyond the dictionary
    pq.write_table(table, folder / f"questions-{codec}.parquet", compression=codec, row_group_size=128, use_dictionary=["input"])
turn = pa.struct([("role", pa.string()), ("content", pa.string())])
chats = [
    [
        {"role": "user", "content": f"Q{i}"},
        {"role": "assistant", "content": f"A{i}"},
        {"role": "user", "content": f"R{i}"},
        {"role": "assistant", "content": f"B{i}"},
    ]
    for i in range(20)
]
pq.write_table(pa.table({"messages": pa.array(chats, pa.list_(turn))}), folder / "chat.parquet", compression="snappy")
