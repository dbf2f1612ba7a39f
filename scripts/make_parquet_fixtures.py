#!/usr/bin/env python3
"""Small Parquet files for the tests, written with pyarrow: scripts/make_parquet_fixtures.py FOLDER"""

import json
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
for codec in ("none", "snappy", "zstd", "gzip", "brotli", "lz4"):
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

# what Hugging Face's datasets writes: a class is a number, its names stand in the metadata
features = {
    "text": {"dtype": "string", "_type": "Value"},
    "label": {"names": ["negative", "positive"], "_type": "ClassLabel"},
    "tags": {"feature": {"names": ["short", "long"], "_type": "ClassLabel"}, "_type": "List"},
}
schema = pa.schema(
    [("text", pa.string()), ("label", pa.int64()), ("tags", pa.list_(pa.int64()))],
    metadata={"huggingface": json.dumps({"info": {"features": features}})},
)
reviews = {"text": ["Dull.", "A delight.", "Unseen."], "label": [0, 1, -1], "tags": [[0], [0, 1], []]}
pq.write_table(pa.table(reviews, schema=schema), folder / "labels.parquet", compression="snappy")

# a text that is none, as a writer that does not look makes one
bad = pa.array([b"good", b"b\xc0\xafd"], pa.binary()).view(pa.string())
pq.write_table(pa.table({"prompt": ["A", "B"], "completion": bad}), folder / "malformed.parquet", compression="none")

# nobody writes LZO any more; this one says so of a column that is not compressed (codec 3 of parquet.thrift)
pq.write_table(pa.table({"text": ["A"]}), folder / "lzo.parquet", compression="none")
plain = (folder / "lzo.parquet").read_bytes()
codec_of_text = b"\x19\x18\x04text\x15"
assert plain.count(codec_of_text + b"\x00") == 1
(folder / "lzo.parquet").write_bytes(plain.replace(codec_of_text + b"\x00", codec_of_text + b"\x06"))
