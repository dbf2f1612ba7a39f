#!/usr/bin/env python3
"""Trains a classifier of movie reviews with lorica and with Hugging Face's Trainer + PEFT, in turn, and compares accuracy and wall
clock; then, of LoRA, loads lorica's adapter in PEFT and compares what the two say.

    pip install torch transformers peft accelerate
    scripts/compare_classifier.py --model MINILM_FOLDER --data MOVIE_REVIEWS_FOLDER [--method full] [--epochs 3] [--limit N]
    scripts/compare_classifier.py --model smollm2.gguf --data MOVIE_REVIEWS_FOLDER [--limit N]      # a GGUF file: lorica alone

The folder has pos.txt and neg.txt, one sentence per line; 80 % are learned, 10 % chosen by, 10 % measured, by seed. Both sides get
LoRA of rank 16 on query and value (q_proj and v_proj), or train everything, with the same learning rate, batches and schedule; the
Trainer pads each batch to its longest text. The wall clock includes starting the program and reading model and data.
"""
import argparse
import json
import random
import shlex
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

LABELS = ["neg", "pos"]


def is_folder(options):
    return options.model.is_dir()


def load(folder, seed, limit):
    records = [{"text": line.strip(), "label": name} for name in LABELS
               for line in (folder / f"{name}.txt").read_text(errors="replace").splitlines() if line.strip()]
    random.Random(seed).shuffle(records)
    records = records[:limit] if limit else records
    tenth = len(records) // 10
    return records[2 * tenth:], records[tenth:2 * tenth], records[:tenth]


def lorica(options, *arguments):
    return json.loads(subprocess.run([*shlex.split(options.lorica), *map(str, arguments), "--json"], check=True, stdout=subprocess.PIPE,
                                     text=True).stdout.splitlines()[-1])


def with_lorica(options, folder, train, test):
    model = options.model
    if is_folder(options):
        model = folder / "model.gguf"
        subprocess.run([*shlex.split(options.lorica), "convert", options.model, model, "--type", "F16"], check=True, capture_output=True)
    targets = "query,value" if is_folder(options) else "q_proj,v_proj"
    lora = ["--lora-r", 16, "--lora-alpha", 32, "--target-modules", targets] if options.method == "lora" else ["--method", "full"]
    for name, records in (("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    start = time.monotonic()
    lorica(options, "train", "--model", model, "--data", folder / "train.jsonl", "--label-field", "label", "--output",
           folder / "adapter", *lora, "--epochs", options.epochs, "--batch-size", options.batch_size, "--learning-rate",
           options.learning_rate, "--save-strategy", "no")
    seconds = time.monotonic() - start
    measured = lorica(options, "eval", "--model", model, "--adapter", folder / "adapter", "--data", folder / "test.jsonl",
                      "--label-field", "label")
    return measured["accuracy"], seconds


def dataset(tokenizer, records):
    return [{**tokenizer(record["text"], truncation=True), "labels": LABELS.index(record["label"])} for record in records]


def with_trainer(options, folder, train, test):
    start = time.monotonic()
    torch.manual_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2, dtype=torch.float32)
    if options.method == "lora":
        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=["query", "value"], task_type="SEQ_CLS"))
    trainer = Trainer(model, TrainingArguments(
        output_dir=folder / "hf", num_train_epochs=options.epochs, per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
        seed=options.seed), train_dataset=dataset(tokenizer, train), data_collator=DataCollatorWithPadding(tokenizer))
    trainer.train()
    seconds = time.monotonic() - start
    predicted = trainer.predict(dataset(tokenizer, test))
    return float((predicted.predictions.argmax(1) == predicted.label_ids).mean()), seconds


def difference(options, folder, test):
    """The largest between the probabilities that PEFT and lorica make of lorica's adapter."""
    base = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder / "adapter").eval()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    texts = [record["text"] for record in test[:50]]
    (folder / "texts.txt").write_text("\n".join(texts) + "\n")
    said = lorica(options, "classify", "--model", folder / "model.gguf", "--adapter", folder / "adapter", "--precision", "f32",
                  folder / "texts.txt")["results"]
    with torch.no_grad():
        expected = torch.cat([model(**tokenizer(text, return_tensors="pt", truncation=True)).logits for text in texts])
    ours = torch.tensor([[one["scores"][name] for name in LABELS] for one in said])
    return (ours - expected.softmax(1)).abs().max().item()


def main():
    parser = argparse.ArgumentParser(description="Compares classifiers with Hugging Face's Trainer.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--lorica", default=str(Path(__file__).resolve().parent / "lorica"), help="the command")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--limit", type=int, help="of sentences, for a quick look")
    options = parser.parse_args()
    train, _, test = load(options.data, options.seed, options.limit)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{len(train)} sentences to learn, {len(test)} to measure, {options.epochs} epochs, {options.method}", flush=True)
        ours = with_lorica(options, folder, train, test)
        print(f"lorica   accuracy {100 * ours[0]:.2f} %, {ours[1]:.1f} s", flush=True)
        if not is_folder(options):
            return
        theirs = with_trainer(options, folder, train, test)
        print(f"Trainer  accuracy {100 * theirs[0]:.2f} %, {theirs[1]:.1f} s ({theirs[1] / ours[1]:.2f} times as long)", flush=True)
        if options.method == "lora":
            print(f"largest difference of probabilities, PEFT with lorica's files: {difference(options, folder, test):.1e}")


if __name__ == "__main__":
    main()
