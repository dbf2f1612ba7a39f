#!/usr/bin/env python3
"""Writes the Hugging Face folders of java/lorica-core's tests of conversion: models of make_family_goldens.py as transformers saves them,
two Llamas and one of each family, and
classifiers on BERT, DistilBERT and RoBERTa. In each family's is a folder peft with an adapter on all that its case adapts, as PEFT
saves it, and the logits of TOKENS that it computes with it.

    pip install torch==2.13.0 transformers==5.18.0 peft==0.21.0 gguf==0.19.0     # Python 3.11
    scripts/make_convert_goldens.py
    scripts/make_convert_goldens.py --peft     # the adapters alone, on the models that are there
    scripts/make_convert_goldens.py --greedy   # greedy.json alone, of the models that are there
    scripts/make_convert_goldens.py --keys     # defaults.json alone: what transformers' classes take for a key that is not in config.json

Converted, each must give the model.gguf of the same name in native/tests/data/model_goldens.
"""
import argparse
import json
import random
import shutil
import tempfile
from pathlib import Path

import gguf
import numpy as np
import safetensors.torch
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

import lorica_tensors
import make_family_goldens as models

DATA = models.REPOSITORY / "java/lorica-core/src/test/resources/convert"
N_PROMPTS, N_GREEDY, CLEAR = 5, 8, 0.02
# What the release of llama.cpp that the Java tests run computes as transformers does: it has no window of Llama's, Phi-3's and
# OLMo's, none of mistral3, qwen3 and smollm3, and a gemma2 only with as many layers as published ones have.
IN_LLAMA_CPP = ["gpt2", "llama_biases", "llama_yarn", "qwen2", "qwen2_yarn", "granite", "falcon_7b", "falcon_40b",
                "gptneox", "gptneox_serial", "gemma", "gemma2", "gemma3", "olmo2", "phi4_mini"]
TOKENS = [1, 40, 52, 33, 80, 17, 64, 9, 71, 28]  # as FamilyTest has them
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def sentencepiece_tokenizer(folder, n_vocab=len(models.TOKENS), space_prefix=True):
    proto = sentencepiece.ModelProto()
    proto.trainer_spec.model_type = sentencepiece.TrainerSpec.BPE
    proto.trainer_spec.vocab_size = n_vocab
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = space_prefix
    for token, kind in zip(models.TOKENS[:n_vocab], models.TOKEN_TYPES):
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


def greedy(case, model, folder):
    """greedy.json: prompts of capitals, and the texts that transformers continues them with, where the best token is clear at every
    step and none is a special one. Each token but the first three is a byte."""
    rng = random.Random(1)
    prompts = ["".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(10)) for _ in range(600)]
    ids = torch.tensor([[1] + [models.TOKENS.index(f"<0x{byte:02X}>") for byte in prompt.encode()] for prompt in prompts])
    clear = torch.ones(len(prompts), dtype=torch.bool)
    for _ in range(N_GREEDY):
        with torch.no_grad():
            best = model(ids, use_cache=False, logits_to_keep=1).logits[:, -1].topk(2)
        clear &= (best.indices[:, 0] > 3) & (best.values[:, 0] - best.values[:, 1] > CLEAR)
        ids = torch.cat([ids, best.indices[:, :1]], dim=1)
    found = {prompt: "".join(chr(token - 3) for token in row[-N_GREEDY:].tolist())
             for prompt, row, is_clear in zip(prompts, ids, clear) if is_clear}
    found = dict(list(found.items())[:N_PROMPTS])
    assert len(set(found.values())) >= 2, (case.name, found)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "greedy.json").write_text(json.dumps(found, indent=1))


def family(case, folder):
    """In F16, which holds the values of these models exactly. Gemma 3 has rows of its embedding that no token uses."""
    with tempfile.TemporaryDirectory() as scratch:
        model = models.make_model(case, Path(scratch)).to(torch.float16)
    if case.name in IN_LLAMA_CPP:
        greedy(case, model.float(), folder)
    model = model.to(torch.float16)
    if case.name == "gemma3":
        model.resize_token_embeddings(case.n_vocab + 4)
    model.save_pretrained(folder)
    sentencepiece_tokenizer(folder, case.n_vocab, space_prefix=False)


def peft_adapter(case, folder):
    """Matrices in F16; A and B are random, so that every row of every layer is in the logits."""
    model = case.model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    rng = np.random.default_rng(case.seed)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=8, target_modules=case.target_modules))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.from_numpy((0.2 * rng.standard_normal(parameter.shape)).astype(np.float16)))
        logits = adapted(input_ids=torch.tensor([TOKENS]), use_cache=False).logits[0].float().contiguous()
    shutil.rmtree(folder / "peft", ignore_errors=True)
    adapted.peft_config["default"].base_model_name_or_path = case.name
    adapted.half().save_pretrained(folder / "peft")
    (folder / "peft/README.md").unlink(missing_ok=True)
    safetensors.torch.save_file({"logits": logits}, folder / "peft/logits.safetensors")


WORD_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##e", "##s", "a", "t", "##h"] + [f"w{i}" for i in range(85)]
ENCODER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 40}
ENCODERS = ("bert", "distilbert", "roberta")


def encoder_config(name):
    labels = {"id2label": {0: "bad", 1: "good", 2: "neither"}, "label2id": {"bad": 0, "good": 1, "neither": 2}}
    if name == "bert":
        return transformers.BertConfig(vocab_size=96, **ENCODER, **labels)
    if name == "roberta":
        return transformers.RobertaConfig(vocab_size=300, **ENCODER, **labels, layer_norm_eps=1e-5)
    return transformers.DistilBertConfig(vocab_size=96, dim=32, hidden_dim=48, n_layers=2, n_heads=2,
                                         max_position_embeddings=40, **labels)


def roberta_tokenizer(folder):
    from tokenizers import Tokenizer, decoders, models as bpe, pre_tokenizers, processors
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "<pad>", "</s>", "<unk>"] + alphabet + ["th", "the"]
    tokenizer = Tokenizer(bpe.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[("t", "h"), ("th", "e")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    tokenizer.add_special_tokens(tokens[:4])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}))


def encoder(name, folder):
    """A classifier in F16, and expected.gguf: the same in llama.cpp's layout, in F32."""
    config = encoder_config(name)
    model = {"bert": transformers.BertForSequenceClassification, "roberta": transformers.RobertaForSequenceClassification,
             "distilbert": transformers.DistilBertForSequenceClassification}[name](config)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    writer = gguf.GGUFWriter(folder / "expected.gguf", "bert")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, 2)
    positions = 38 if name == "roberta" else 40
    numbers = {"block_count": 2, "context_length": positions, "embedding_length": 32, "feed_forward_length": 48,
               "attention.head_count": 2}
    tokenizer = "gpt2" if name == "roberta" else "bert"
    # gguf knows the encoder's tensors; of its classifiers those of other models.
    heads = {tensor.hf_name: tensor.name for tensor in lorica_tensors.of_metadata(
        {"general.architecture": "bert", "tokenizer.ggml.model": tokenizer, "bert.vocab_size": config.vocab_size}
        | {f"bert.{key}": value for key, value in numbers.items()},
        ["token_embd.weight"] + ["token_types.weight"] * (name != "distilbert")).values() if tensor.is_of_classifier}
    rng = np.random.default_rng(len(name))
    with torch.no_grad():
        for full, parameter in model.named_parameters():
            values = (0.3 * rng.standard_normal(parameter.shape)).astype(np.float16)
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
            base, kind = full.rsplit(".", 1)
            ours = heads.get(full) or f"{names.get_name(base.removeprefix(name + '.'))}.{kind}"
            assert not ours.startswith("None"), full
            if name == "roberta" and ours == "position_embd.weight":
                values = values[2:]  # position 0 is row pad_token_id + 1
            writer.add_tensor(ours, values.astype(np.float32))
    for key, value in numbers.items():
        writer.add_uint32("bert." + key, value)
    writer.add_float32("bert.attention.layer_norm_epsilon", 1e-5 if name == "roberta" else 1e-12)
    writer.add_bool("bert.attention.causal", False)
    writer.add_array("bert.classifier.output_labels", ["bad", "good", "neither"])
    writer.add_uint32("tokenizer.ggml.token_type_count", 1 if name == "distilbert" else 2)
    writer.add_tokenizer_model(tokenizer)
    if name == "roberta":
        writer.add_tokenizer_pre("roberta-bpe")
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(2)
        writer.add_add_bos_token(True)
        writer.add_add_eos_token(True)
        roberta_tokenizer(folder)
    else:
        writer.add_token_list([token if token[0] == "[" else token[2:] if token[:2] == "##" else "\u2581" + token for token in WORD_PIECES])
        writer.add_uint32("tokenizer.ggml.cls_token_id", 2)
        writer.add_sep_token_id(3)
        (folder / "vocab.txt").write_text("\n".join(WORD_PIECES) + "\n")
        (folder / "tokenizer_config.json").write_text(json.dumps({
            "do_lower_case": True, "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
            "mask_token": "[MASK]", "tokenizer_class": "BertTokenizer"}))
    models.write(writer)
    model.to(torch.float16).save_pretrained(folder)
    print(name, sorted(path.name for path in folder.iterdir()))


def defaults(folder):
    """By the folders that are there: what transformers takes for each key of the class, should the config.json not have it."""
    known = {}
    for path in sorted(folder.glob("*/config.json")):
        config = json.loads(path.read_text())
        cls = getattr(transformers, config["architectures"][0]).config_class
        known[path.parent.name] = {}
        for key in sorted(set(config) | set(cls().to_dict())):
            try:
                without = cls.from_dict({other: value for other, value in config.items() if other != key}).to_dict()
                known[path.parent.name][key] = without.get(key)
            except Exception as error:  # the rest fits no default
                print(path.parent.name, key, type(error).__name__)
    (folder / "defaults.json").write_text(json.dumps(known, sort_keys=True).replace("}, ", "},\n") + "\n")


def main():
    parser = argparse.ArgumentParser(description="Writes Hugging Face folders for the tests of conversion.")
    parser.add_argument("--output", type=Path, default=DATA)
    parser.add_argument("--peft", action="store_true", help="the adapters alone")
    parser.add_argument("--greedy", action="store_true", help="the continuations alone")
    parser.add_argument("--keys", action="store_true", help="the defaults of transformers' configurations alone")
    parser.add_argument("names", nargs="*", help="of models (default: all)")
    arguments = parser.parse_args()
    if arguments.keys:
        defaults(arguments.output)
        return
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for name in ENCODERS if not arguments.peft and not arguments.greedy else ():
        if not arguments.names or name in arguments.names:
            encoder(name, arguments.output / name)
    for case in models.CASES:
        if case.method != "lora" or arguments.names and case.name not in arguments.names:
            continue
        folder = arguments.output / case.name
        if arguments.greedy:
            if case.name in IN_LLAMA_CPP:
                greedy(case, case.model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval(), folder)
                print(case.name)
            continue
        if arguments.peft:
            if case.n_vocab != len(models.TOKENS) and case.name not in FOLDERS:
                peft_adapter(case, folder)
                print(case.name, sorted(path.name for path in (folder / "peft").iterdir()))
            continue
        if case.name in FOLDERS:
            dtype, tokenizer, shard = FOLDERS[case.name]
            shutil.rmtree(folder, ignore_errors=True)
            with tempfile.TemporaryDirectory() as scratch:
                model = models.make_model(case, Path(scratch)).to(dtype)
            model.config.bos_token_id, model.config.eos_token_id = 1, 2
            model.save_pretrained(folder, max_shard_size=shard)
            tokenizer(folder)
        elif case.n_vocab != len(models.TOKENS):
            shutil.rmtree(folder, ignore_errors=True)
            family(case, folder)
            peft_adapter(case, folder)
        else:
            continue
        print(case.name, sorted(path.name for path in folder.iterdir()))
    defaults(arguments.output)


if __name__ == "__main__":
    main()
