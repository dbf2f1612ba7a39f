#!/usr/bin/env python3
"""Writes the Hugging Face folders of java/lorica-core's tests of conversion: two models of make_family_goldens.py as transformers saves them.

    pip install torch==2.13.0 transformers==5.18.0 gguf==0.19.0     # Python 3.11
    scripts/make_convert_goldens.py

Converted, each must give the model.gguf of the same name in native/tests/data/model_goldens.
"""
import argparse
import json
import shutil
import tempfile
from pathlib import Path

import torch
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

import make_family_goldens as models

DATA = models.REPOSITORY / "java/lorica-core/src/test/resources/convert"
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def sentencepiece_tokenizer(folder):
    proto = sentencepiece.ModelProto()
    proto.trainer_spec.model_type = sentencepiece.TrainerSpec.BPE
    proto.trainer_spec.vocab_size = len(models.TOKENS)
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = True
    for token, kind in zip(models.TOKENS, models.TOKEN_TYPES):
        proto.pieces.add(piece=token, score=0.0, type=int(kind))
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "LlamaTokenizer", "bos_token": {"content": "<s>"}, "eos_token": "</s>", "unk_token": "<unk>",
        "chat_template": [{"name": "tool_use", "template": "?"}, {"name": "default", "template": TEMPLATE}]}, indent=1))


def json_tokenizer(folder):
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0",
        "added_tokens": [{"id": i, "content": models.TOKENS[i], "special": True} for i in range(3)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
                                                           {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                                                                    {"Sequence": {"id": "A", "type_id": 0}}]},
        "model": {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>",
                  "vocab": {token: i for i, token in enumerate(models.TOKENS)}, "merges": [["\u2581", "word"]]}}, indent=1))


FOLDERS = {
    # dtype, tokenizer, largest shard
    "llama3_rope_f16": (torch.float16, sentencepiece_tokenizer, "100KB"),
    "one_kv_head_bf16": (torch.bfloat16, json_tokenizer, "10MB"),
}


def main():
    parser = argparse.ArgumentParser(description="Writes Hugging Face folders for the tests of conversion.")
    parser.add_argument("--output", type=Path, default=DATA)
    arguments = parser.parse_args()
    for name, (dtype, tokenizer, shard) in FOLDERS.items():
        case = next(case for case in models.CASES if case.name == name)
        folder = arguments.output / name
        shutil.rmtree(folder, ignore_errors=True)
        with tempfile.TemporaryDirectory() as scratch:
            model = models.make_model(case, Path(scratch)).to(dtype)
        model.config.bos_token_id, model.config.eos_token_id = 1, 2
        model.save_pretrained(folder, max_shard_size=shard)
        tokenizer(folder)
        print(name, sorted(path.name for path in folder.iterdir()))


if __name__ == "__main__":
    main()
