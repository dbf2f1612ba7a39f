#!/usr/bin/env python3
"""Writes the goldens of native/tests/data/classifier_goldens: what transformers and PEFT compute of small encoders and of
decoders with a classifier.

    pip install torch==2.13.0 transformers==5.18.0 peft==0.21.0 gguf==0.19.0     # Python 3.11
    scripts/make_classifier_goldens.py             # all of them
    scripts/make_classifier_goldens.py bert        # some

Each case is a folder as make_family_goldens.py writes them, with a random model in llama.cpp's layout, an adapter with
random values, and golden.gguf:

    outputs      [sequences, outputs] of the adapted model, base.mean, base.first, base.last [sequences, n_embd] of the base's
                 hidden states
    loss, gradient.NAME   of the mean loss of the first batch
    losses, grad_norms    of 20 steps of AdamW

Each sequence goes through the model alone. Problems are transformers': cross-entropy of classes, BCE of several labels at once,
squares of one number.
"""
import argparse
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from make_family_goldens import N_STEPS, in_ggml_order, write
from peft import IA3Config, LoraConfig, get_peft_model

DATA = Path(__file__).resolve().parent.parent / "native/tests/data/classifier_goldens"
WEIGHT_DECAY, MAX_GRAD_NORM = 0.1, 1.0
N_VOCAB = 96


@dataclass
class Case:
    name: str
    arch: str  # GGUF's
    config: object
    model_class: type
    targets: object
    metadata: dict
    problem: str = "single_label_classification"
    modules_to_save: list = field(default_factory=list)
    method: str = "lora"
    feedforward: list = None
    tokenizer: str = "bert"
    first_position: int = 0
    batches: tuple = ((9, 1, 6), (7, 5))  # lengths of the sequences
    n_vocab: int = N_VOCAB
    learning_rate: float = 3e-3


def encoder(name, kind, targets, tokenizer="bert", first_position=0, **more):
    labels = more.pop("num_labels", 3)
    if kind == "DistilBert":
        config = transformers.DistilBertConfig(
            vocab_size=N_VOCAB, dim=32, hidden_dim=64, n_layers=2, n_heads=4, max_position_embeddings=64, dropout=0.0,
            attention_dropout=0.0, seq_classif_dropout=0.0, num_labels=labels, pad_token_id=0, attn_implementation="eager")
    else:
        config = getattr(transformers, kind + "Config")(
            vocab_size=N_VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64 + first_position, type_vocab_size=1 if kind == "Roberta" else 2,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0, num_labels=labels,
            layer_norm_eps=1e-5 if kind == "Roberta" else 1e-12, pad_token_id=1 if kind == "Roberta" else 0,
            attn_implementation="eager")
    keys = {"block_count": 2, "context_length": 64, "embedding_length": 32, "feed_forward_length": 64,
            "attention.head_count": 4, "attention.layer_norm_epsilon": 1e-5 if kind == "Roberta" else 1e-12,
            "attention.causal": False}
    return Case(name, "bert", config, getattr(transformers, kind + "ForSequenceClassification"), targets, keys,
                tokenizer=tokenizer, first_position=first_position, **more)


def llama(name, **more):
    labels = more.pop("num_labels", 3)
    config = transformers.LlamaConfig(
        vocab_size=N_VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, num_labels=labels, pad_token_id=None, bos_token_id=1, eos_token_id=2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, attn_implementation="eager")
    keys = {"block_count": 2, "context_length": 64, "embedding_length": 32, "feed_forward_length": 48,
            "attention.head_count": 4, "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
            "rope.dimension_count": 8, "rope.freq_base": 10000.0, "vocab_size": N_VOCAB}
    return Case(name, "llama", config, transformers.LlamaForSequenceClassification, "all-linear", keys, tokenizer="llama",
                **more)


BERT_LINEARS = r".*layer\.\d+\..*(query|key|value|dense)"
DISTILBERT_LINEARS = ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"]
CASES = [
    encoder("bert", "Bert", BERT_LINEARS),
    encoder("distilbert", "DistilBert", DISTILBERT_LINEARS, modules_to_save=["pre_classifier"],
            problem="multi_label_classification"),
    encoder("roberta", "Roberta", BERT_LINEARS, tokenizer="gpt2", first_position=2, num_labels=1, problem="regression"),
    llama("llama"),
    llama("llama_regression", num_labels=1, problem="regression"),
    encoder("ia3_bert", "Bert", ["key", "value", "output.dense"], method="ia3", feedforward=["output.dense"]),
    encoder("bitfit_distilbert", "DistilBert", None, method="bitfit"),
    encoder("full_bert", "Bert", None, method="full", learning_rate=3e-4),
    llama("full_llama", method="full", learning_rate=3e-4),
]

ROOTS = ("bert.", "distilbert.", "roberta.")
CLASSIFIER = {"bert.pooler.dense": "cls", "pre_classifier": "cls", "classifier.dense": "cls", "classifier": "cls.output",
              "classifier.out_proj": "cls.output", "score": "cls.output"}
NAMES = {arch: gguf.get_tensor_name_map(number, 8)
         for arch, number in (("bert", gguf.MODEL_ARCH.BERT), ("llama", gguf.MODEL_ARCH.LLAMA))}


def ggml_name(case, name):
    base, dot, suffix = name.rpartition(".")
    if base in CLASSIFIER:
        return CLASSIFIER[base] + dot + suffix
    for root in ROOTS:
        name = name.removeprefix(root)
    found = NAMES[case.arch].get_name(name, (".weight", ".bias"))
    assert found, f"the gguf package has no name for {name}"
    return found


def ordered(case, name, values):
    """Encoders have one order of rows."""
    return in_ggml_order(case, name, values) if case.arch == "llama" else np.ascontiguousarray(values)


def make_model(case, folder):
    model = case.model_class(case.config).eval()
    writer = gguf.GGUFWriter(folder / "model.gguf", case.arch)
    writer.add_name(case.name)
    for key, value in case.metadata.items():
        add = {int: writer.add_uint32, float: writer.add_float32, bool: writer.add_bool}[type(value)]
        add(f"{case.arch}.{key}", value)
    writer.add_tokenizer_model(case.tokenizer)
    writer.add_token_list([f"t{i}" for i in range(N_VOCAB)])
    seed = sum(map(ord, case.name))
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for hf_name, parameter in model.named_parameters():
            name = ggml_name(case, hf_name)
            is_vector = parameter.ndim == 1
            scale = 0.1 if is_vector else 1 / np.sqrt(parameter.shape[1])
            values = (scale * rng.standard_normal(parameter.shape)).astype(np.float16).astype(np.float32)
            if is_vector and name.endswith("weight"):
                values += 1
            parameter.copy_(torch.from_numpy(values))
            if name.startswith("cls") and not hf_name.startswith("bert.pooler"):
                continue  # the adapter's
            stored = ordered(case, name, values)
            if name == "position_embd.weight":
                stored = stored[case.first_position:]
            writer.add_tensor(name, stored if is_vector else stored.astype(np.float16))
    write(writer)
    return model


def make_adapter(case, model, folder):
    """The model with the adapter in PEFT, and what is trained by GGUF's names."""
    if case.method == "lora":
        model = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=case.targets, task_type="SEQ_CLS",
                                                 modules_to_save=case.modules_to_save or None))
    elif case.method == "ia3":
        model = get_peft_model(model, IA3Config(target_modules=case.targets, feedforward_modules=case.feedforward,
                                                task_type="SEQ_CLS"))
    elif case.method == "bitfit":
        model.requires_grad_(False)
        for name, parameter in model.named_parameters():
            gguf_name = ggml_name(case, name)
            parameter.requires_grad_(gguf_name.startswith("cls") or (parameter.ndim == 1 and gguf_name.startswith("blk")))
    writer = gguf.GGUFWriter(folder / "adapter.gguf", case.arch)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, case.method)
    if case.method == "lora":
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 4)
    rng = np.random.default_rng(1000 + sum(map(ord, case.name)))
    parameters = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            plain = name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
            if ".lora_" in plain:
                base, half = plain.removesuffix(".default.weight").rsplit(".", 1)
                full = f"{ggml_name(case, base + '.weight')}.{half.lower()}"
                size = {"lora_A": 1.0, "lora_B": 0.2}[half] / np.sqrt(3 * parameter.shape[1])
                values = (size * rng.standard_normal(parameter.shape)).astype(np.float32)
            elif plain.endswith(".ia3_l.default"):
                full = ggml_name(case, plain.removesuffix(".ia3_l.default") + ".weight") + ".ia3_l"
                values = (parameter.numpy() + 0.2 * rng.standard_normal(parameter.shape)).astype(np.float32)
            else:
                full = ggml_name(case, plain)
                values = (parameter.numpy() + 0.1 * rng.standard_normal(parameter.shape)).astype(np.float32)
            parameter.copy_(torch.from_numpy(values))
            parameters[full] = parameter
            writer.add_tensor(full, stored_as(case, full, values))
    write(writer)
    return model, parameters


def stored_as(case, name, values):
    if values.ndim == 1:
        return np.ascontiguousarray(values.reshape(-1, 1))
    return ordered(case, name, values) if name.endswith("lora_b") or case.method == "full" else np.ascontiguousarray(values)


@dataclass
class Batch:
    tokens: list
    types: list
    targets: np.ndarray


def make_batch(case, lengths, rng):
    tokens = [rng.integers(3, N_VOCAB, n).astype(np.int32) for n in lengths]
    two = case.arch == "bert" and getattr(case.config, "type_vocab_size", 1) == 2
    types = [(np.arange(n) >= (n + 1) // 2).astype(np.int32) * int(two) for n in lengths]
    n_out = case.config.num_labels
    targets = {"single_label_classification": lambda: rng.integers(0, n_out, len(lengths)).astype(np.float32)[:, None],
               "multi_label_classification": lambda: rng.integers(0, 2, (len(lengths), n_out)).astype(np.float32),
               "regression": lambda: rng.standard_normal((len(lengths), n_out)).astype(np.float32)}[case.problem]()
    return Batch(tokens, types, targets)


def inputs(case, tokens, types):
    arguments = {"input_ids": torch.from_numpy(tokens).long()[None]}
    arguments["attention_mask"] = torch.ones_like(arguments["input_ids"])
    if case.arch == "bert" and hasattr(case.config, "type_vocab_size"):
        arguments["token_type_ids"] = torch.from_numpy(types).long()[None]
    return arguments


def outputs(case, model, batch):
    return torch.cat([model(**inputs(case, t, y)).logits for t, y in zip(batch.tokens, batch.types)])


def mean_loss(case, model, batch):
    x, y = outputs(case, model, batch), torch.from_numpy(batch.targets)
    if case.problem == "single_label_classification":
        return torch.nn.functional.cross_entropy(x, y[:, 0].long())
    if case.problem == "multi_label_classification":
        return torch.nn.functional.binary_cross_entropy_with_logits(x, y)
    return torch.nn.functional.mse_loss(x, y)


def golden(case, folder):
    model = make_model(case, folder)
    rng = np.random.default_rng(2000 + sum(map(ord, case.name)))
    batches = [make_batch(case, lengths, rng) for lengths in case.batches]
    first = batches[0]
    writer = gguf.GGUFWriter(folder / "golden.gguf", "lorica-golden")
    for key, value in (("learning_rate", case.learning_rate), ("weight_decay", WEIGHT_DECAY), ("max_grad_norm", MAX_GRAD_NORM)):
        writer.add_float32(key, value)
    writer.add_string("problem", case.problem)
    for i, batch in enumerate(batches):
        writer.add_tensor(f"batch.{i}.tokens", np.concatenate(batch.tokens))
        writer.add_tensor(f"batch.{i}.types", np.concatenate(batch.types))
        writer.add_tensor(f"batch.{i}.targets", batch.targets)
        writer.add_tensor(f"batch.{i}.sequence_lengths", np.array([len(x) for x in batch.tokens], dtype=np.int32))
    with torch.no_grad():
        states = [model.base_model(**inputs(case, t, y)).last_hidden_state[0] for t, y in zip(first.tokens, first.types)]
        for pooling, of in (("mean", lambda x: x.mean(0)), ("first", lambda x: x[0]), ("last", lambda x: x[-1])):
            writer.add_tensor(f"base.{pooling}", torch.stack([of(x) for x in states]).numpy())
    model, parameters = make_adapter(case, model, folder)
    with torch.no_grad():
        writer.add_tensor("outputs", outputs(case, model, first).numpy())
    loss = mean_loss(case, model, first)
    loss.backward()
    writer.add_float64("loss", loss.item())
    for name, parameter in parameters.items():
        # A key's bias adds the same to all scores of a query: nothing.
        assert parameter.grad.abs().max() > 0 or name.endswith("attn_k.bias"), name
        writer.add_tensor(f"gradient.{name}", stored_as(case, name, parameter.grad.numpy()))
        parameter.grad = None
    optimizer = torch.optim.AdamW(list(parameters.values()), lr=case.learning_rate, weight_decay=WEIGHT_DECAY)
    losses, norms = [], []
    for step in range(N_STEPS):
        optimizer.zero_grad()
        loss = mean_loss(case, model, batches[step % len(batches)])
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), MAX_GRAD_NORM).item())
        optimizer.step()
        losses.append(loss.item())
    print(f"{case.name}: losses {losses[0]:.4f} ... {losses[-1]:.4f}, gradient norms {min(norms):.3f} to {max(norms):.3f}")
    writer.add_tensor("losses", np.array(losses))
    writer.add_tensor("grad_norms", np.array(norms))
    write(writer)


def main():
    parser = argparse.ArgumentParser(description="Writes the goldens of classifiers.")
    parser.add_argument("--output", type=Path, default=DATA)
    parser.add_argument("names", nargs="*", help="of cases (default: all)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for case in CASES:
        if arguments.names and case.name not in arguments.names:
            continue
        folder = arguments.output / case.name
        folder.mkdir(parents=True, exist_ok=True)
        golden(case, folder)


if __name__ == "__main__":
    main()
