#!/usr/bin/env python3
"""Measures Lorica next to what else one could use on the same machine, taking turns: A B A B, the median of the ratios.

    steps     PyTorch + PEFT, in bf16 or f32, whichever is faster here, and lorica-bench: whole training steps, random weights of the same shape, the same
              number of tokens in sequences of the same length
    trainer   Hugging Face Trainer, in the faster of the two as well, and `lorica train` on the tutorial's own job: same model file, data, template and
              hyper-parameters; wall clock of the whole program, and of training alone
    llama     llama.cpp's llama-bench and lorica-bench: prompt processing and decoding (needs llama-bench)

Run by scripts/bench-peers.sh, which says how. Needs torch, transformers, peft, accelerate and gguf.
"""

import argparse
import contextlib
import datetime
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
SHAPES = {  # n_layer, n_embd, n_ff, n_head, n_head_kv, n_vocab: those of native/bench/shapes.cpp
    "mini": (4, 256, 512, 4, 2, 2000),
    "s135": (30, 576, 1536, 9, 3, 32000),
    "tiny1b": (22, 2048, 5632, 32, 4, 32000),
    "llama8b": (32, 4096, 14336, 32, 8, 128256),
}


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


# ---- the other side, each in a process of its own


def say(**values):
    print(json.dumps(values), flush=True)


def peft_worker(job):
    """One training step for each line of stdin."""
    import peft
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    torch.manual_seed(1)
    n_layer, n_embd, n_ff, n_head, n_head_kv, n_vocab = SHAPES[job["shape"]]
    config = transformers.LlamaConfig(
        num_hidden_layers=n_layer,
        hidden_size=n_embd,
        intermediate_size=n_ff,
        num_attention_heads=n_head,
        num_key_value_heads=n_head_kv,
        vocab_size=n_vocab,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        use_cache=False,
    )
    device = torch.device(job["device"])
    torch.set_default_dtype(getattr(torch, job["dtype"]))
    with device:
        model = transformers.LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    modules = "all-linear" if job["targets"] == ["all-linear"] else job["targets"]
    # Adapters in the same type: faster than PEFT's default, which converts to float32 and back around each of them.
    model = peft.get_peft_model(
        model,
        peft.LoraConfig(r=16, lora_alpha=32, target_modules=modules, task_type="CAUSAL_LM"),
        autocast_adapter_dtype=False,
    )
    if job["recompute"]:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    model.to(device).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
    ids = torch.randint(0, n_vocab, (job["tokens"] // job["length"], job["length"]), device=device)

    def step():
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    step()
    say(ready=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        say(seconds=time.perf_counter() - start)
    say(
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_bytes(),
        versions={"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__},
    )


def load_for_trainer(path, name):
    import torch
    import transformers

    dtype = getattr(torch, name)
    if path.is_dir():
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
        return model, transformers.AutoTokenizer.from_pretrained(path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype)
    # The weights are plain numbers now, but Trainer refuses what says that it came from a GGUF file.
    config = transformers.AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.load_state_dict(loaded.state_dict())
    return model, transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


def trainer_worker(job):
    """The tutorial's job from start to end."""
    import peft
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    transformers.logging.set_verbosity_error()
    transformers.set_seed(42)
    model, tokenizer = load_for_trainer(Path(job["trainer_model"]), job["dtype"])
    # PEFT's defaults here, as a user would have them.
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    examples, real_tokens = [], 0
    for record in json.loads(Path(job["data"]).read_text()):
        prompt = tokenizer(f"### Instruction:\n{record['question']}\n\n### Response:\n")["input_ids"]
        if prompt and prompt[-1] == tokenizer.eos_token_id:
            prompt.pop()
        response = tokenizer(record["answer"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        ids = (prompt + response)[: job["padded_to"]]
        room = job["padded_to"] - len(ids)
        real_tokens += len(ids)
        examples.append(
            {
                "input_ids": ids + [padding] * room,
                "attention_mask": [1] * len(ids) + [0] * room,
                "labels": ([-100] * len(prompt) + response)[: job["padded_to"]] + [-100] * room,
            }
        )
    with tempfile.TemporaryDirectory() as output, contextlib.redirect_stdout(sys.stderr):
        trainer = transformers.Trainer(
            model=model,
            train_dataset=examples,
            args=transformers.TrainingArguments(
                output,
                per_device_train_batch_size=job["batch_size"],
                num_train_epochs=job["epochs"],
                learning_rate=job["learning_rate"],
                lr_scheduler_type="linear",
                weight_decay=0.0,
                max_grad_norm=1.0,
                bf16=job["dtype"] == "bfloat16",
                max_steps=job.get("max_steps", -1),
                use_cpu=True,
                report_to=[],
                disable_tqdm=True,
                logging_steps=10**6,
                save_strategy="no",
                seed=42,
            ),
        )
        start = time.perf_counter()
        loss = trainer.train().training_loss
        seconds = time.perf_counter() - start
        model.save_pretrained(output)
    say(seconds=seconds, tokens=int(real_tokens * job["epochs"]), loss=loss, peak_bytes=peak_bytes())


# ---- taking turns


class Process:
    """A program that does one step for each line it is sent."""

    def __init__(self, command, log):
        self.command = command
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.read()  # ready

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"bench_peers: this ended early; build/bench/peers.log has its output: {shlex.join(self.command)}")
        return json.loads(line)

    def step(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()["seconds"]

    def finish(self):
        rest, _ = self.process.communicate()
        if self.process.returncode:
            sys.exit(f"bench_peers: exit status {self.process.returncode}: {shlex.join(self.command)}")
        return json.loads(rest)


def worker_command(kind, job):
    return [sys.executable, __file__, kind + "-worker", json.dumps(job)]


DTYPES = ["bfloat16", "float32"]
STEPS_TO_CHOOSE = 3


def faster_dtype(job, log):
    """The type in which PEFT does this job's steps faster on this machine, and the seconds of a step in both."""
    seconds = {}
    for dtype in DTYPES:
        peft = Process(worker_command("peft", {**job, "dtype": dtype}), log)
        seconds[dtype] = min(peft.step() for _ in range(STEPS_TO_CHOOSE))
        peft.finish()
    return min(DTYPES, key=seconds.get), seconds


def compare_steps(options, shape, targets, recompute, tokens):
    job = {
        "shape": shape,
        "targets": targets.split(","),
        "recompute": recompute,
        "tokens": tokens,
        "length": min(options.length, tokens),
        "threads": options.threads,
        "device": options.device,
    }
    with open(options.output / "peers.log", "a") as log:
        job["dtype"], seconds = faster_dtype(job, log)
        peft = Process(worker_command("peft", job), log)
        lorica = Process(
            [
                *options.bench,
                "steps",
                "--on-request",
                "--shape",
                shape,
                "--targets",
                targets,
                "--tokens",
                str(tokens),
                "--sequence-length",
                str(job["length"]),
                "--recomputation",
                "on" if recompute else "off",
                "--threads",
                str(options.threads),
                "--device",
                options.device,
                "--type",
                options.type,
                *(["--cache", options.cache] if options.cache else []),
            ],
            log,
        )
        times = [(peft.step(), lorica.step()) for _ in range(options.rounds)]
        theirs, ours = peft.finish(), lorica.finish()
    result = {
        **job,
        "peft_seconds_to_choose": seconds,
        "type": ours["result"]["model"]["type"],
        "versions": theirs["versions"],
        "peft_tokens_per_second": summary([tokens / a for a, _ in times]),
        "lorica_tokens_per_second": summary([tokens / b for _, b in times]),
        "ratio": summary([a / b for a, b in times]),
        "peft_peak_bytes": theirs["peak_bytes"],
        "lorica_peak_bytes": ours["result"]["memory"]["peak_bytes"],
    }
    device = options.device.replace(":", "")
    name = f"peers-steps-{'' if device == 'cpu' else device + '-'}{shape}-{'qv' if targets != 'all-linear' else 'all'}{'-recompute' if recompute else ''}"
    save(options, name, "peers-steps", ours["machine"], result)
    print(
        f"{shape} {targets} {tokens} tokens, recompute {'on' if recompute else 'off'}: "
        f"PEFT in {job['dtype']} {result['peft_tokens_per_second']['median']:.1f}, "
        f"Lorica {result['lorica_tokens_per_second']['median']:.1f} tok/s, "
        f"ratio {result['ratio']['median']:.2f}",
        file=sys.stderr,
    )


def run_to_json(command, log):
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True)
    wall = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"bench_peers: exit status {done.returncode}, see build/bench/peers.log: {shlex.join(command)}")
    return json.loads(done.stdout[done.stdout.index("{") :]), wall


def machine_facts(options):
    command = [*options.bench, "start", "--shape", "mini", "--examples", "1", "--repetitions", "1"]
    with open(options.output / "peers.log", "a") as log:
        done, _ = run_to_json(command, log)
    return done["machine"]


def compare_trainer(options):
    job = {
        "model": str(options.model.resolve()),
        "data": str(CHECKOUT / "models/data/pride_and_prejudice_train.json"),
        "padded_to": 128,
        "batch_size": 4,
        "epochs": options.epochs,
        "learning_rate": 2e-4,
        "threads": options.threads,
        "trainer_model": str((options.trainer_model or options.model).resolve()),
    }
    rows = []
    with open(options.output / "peers.log", "a") as log:
        trials = {d: {**job, "dtype": d, "max_steps": STEPS_TO_CHOOSE} for d in DTYPES}
        seconds = {d: run_to_json(worker_command("trainer", trial), log)[0]["seconds"] for d, trial in trials.items()}
        job["dtype"] = min(DTYPES, key=seconds.get)
        for _ in range(options.trainer_rounds):
            theirs, their_wall = run_to_json(worker_command("trainer", job), log)
            with tempfile.TemporaryDirectory() as output:
                ours, our_wall = run_to_json(
                    [
                        str(CHECKOUT / "scripts/lorica"),
                        "train",
                        "--model",
                        job["model"],
                        "--data",
                        job["data"],
                        "--output",
                        output,
                        "--lora-r",
                        "16",
                        "--lora-alpha",
                        "32",
                        "--target-modules",
                        "all-linear",
                        "--batch-size",
                        str(job["batch_size"]),
                        "--epochs",
                        str(options.epochs),
                        "--learning-rate",
                        str(job["learning_rate"]),
                        "--max-length",
                        str(job["padded_to"]),
                        "--overflow",
                        "truncate",
                        "--lr-scheduler-type",
                        "linear",
                        "--threads",
                        str(options.threads),
                        "--json",
                    ],
                    log,
                )
            rows.append((theirs, their_wall, ours, our_wall))
    result = {
        **job,
        "model": options.model.name,
        "data": Path(job["data"]).name,
        "trainer_model": Path(job["trainer_model"]).name,
        "trainer_wall_seconds": summary([wall for _, wall, _, _ in rows]),
        "lorica_wall_seconds": summary([wall for _, _, _, wall in rows]),
        "ratio": summary([a / b for _, a, _, b in rows]),
        "ratio_of_training": summary([t["seconds"] / o["seconds"] for t, _, o, _ in rows]),
        "trainer_tokens_per_second": summary([t["tokens"] / t["seconds"] for t, _, _, _ in rows]),
        "lorica_tokens_per_second": summary([o["tokens"] / o["seconds"] for _, _, o, _ in rows]),
        "trainer_loss": rows[-1][0]["loss"],
        "lorica_loss": rows[-1][2]["loss"],
        "trainer_tokens": rows[-1][0]["tokens"],
        "lorica_tokens": rows[-1][2]["tokens"],
        "trainer_peak_bytes": max(t["peak_bytes"] for t, _, _, _ in rows),
        "lorica_peak_bytes": max(o["peak_memory_bytes"] or 0 for _, _, o, _ in rows),
    }
    save(options, f"peers-trainer-{options.model.stem}", "peers-trainer", machine_facts(options), result)
    print(
        f"{options.model.name}, {options.epochs} epochs: Trainer {result['trainer_wall_seconds']['median']:.1f} s, "
        f"Lorica {result['lorica_wall_seconds']['median']:.1f} s, ratio {result['ratio']['median']:.2f} "
        f"(training alone {result['ratio_of_training']['median']:.2f})",
        file=sys.stderr,
    )


def compare_llama(options, llama_bench):
    prompt, generate = 512, 64
    rows = []
    with open(options.output / "peers.log", "a") as log:
        for _ in range(options.rounds):
            both = ["-t", str(options.threads), "-p", str(prompt), "-n", str(generate), "-r", "1", "-o", "json"]
            done = subprocess.run(
                [*llama_bench, "-m", str(options.model), *both], stdout=subprocess.PIPE, stderr=log, text=True, check=True
            )
            speeds = {(entry["n_prompt"], entry["n_gen"]): entry["avg_ts"] for entry in json.loads(done.stdout)}
            # llama-bench generates from an empty context.
            decode = [*options.bench, "decode", "--model", str(options.model), "--repetitions", "1", "--threads", str(options.threads)]
            of_prompt, _ = run_to_json([*decode, "--prompt", str(prompt), "--generate", "1"], log)
            ours, _ = run_to_json([*decode, "--prompt", "1", "--generate", str(generate)], log)
            rows.append(
                (
                    speeds[prompt, 0],
                    speeds[0, generate],
                    of_prompt["result"]["prompt_tokens_per_second"]["median"],
                    ours["result"]["decode_tokens_per_second"]["median"],
                )
            )
    result = {
        "model": options.model.name,
        "threads": options.threads,
        **{
            name: summary([row[i] for row in rows])
            for i, name in enumerate(["llama_prompt", "llama_decode", "lorica_prompt", "lorica_decode"])
        },
        "prompt_ratio": summary([r[2] / r[0] for r in rows]),
        "decode_ratio": summary([r[3] / r[1] for r in rows]),
    }
    save(options, f"peers-llama-{options.model.stem}", "peers-llama", ours["machine"], result)
    print(
        f"llama-bench {options.model.name}: prompt ratio {result['prompt_ratio']['median']:.2f}, "
        f"decode ratio {result['decode_ratio']['median']:.2f}",
        file=sys.stderr,
    )


def save(options, name, command, machine, result):
    machine = {**machine, "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")}
    path = options.output / f"{name}.json"
    path.with_suffix(".json.partial").write_text(
        json.dumps({"command": command, "machine": machine, "result": result}, indent=2)
    )
    path.with_suffix(".json.partial").rename(path)


def main():
    if len(sys.argv) == 3 and sys.argv[1] in ("peft-worker", "trainer-worker"):
        return (peft_worker if sys.argv[1] == "peft-worker" else trainer_worker)(json.loads(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help="steps, trainer, llama; default: all that can run")
    parser.add_argument("--bench", required=True, type=shlex.split, help="command that runs lorica-bench")
    parser.add_argument("--output", required=True, type=Path, help="folder for the JSON")
    parser.add_argument(
        "--shapes", default="s135,tiny1b", type=lambda text: text.split(","), help="default: %(default)s"
    )
    parser.add_argument("--tokens", type=int, help="of one step; default: 2048, tiny1b 512")
    parser.add_argument("--length", type=int, default=512, help="of a sequence; default: %(default)s")
    parser.add_argument("--device", default="cpu", help="of steps, for both: cpu, cuda:0, …; default: %(default)s")
    parser.add_argument("--type", default="q4_0", help="of Lorica's weights in steps; default: %(default)s")
    parser.add_argument("--cache", help="where lorica-bench keeps models of random weights")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each; default: %(default)s")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: %(default)s")
    parser.add_argument(
        "--model",
        type=Path,
        default=CHECKOUT / "models/austen-7m-q4_0.gguf",
        help="of trainer and llama; default: %(default)s",
    )
    parser.add_argument(
        "--trainer-model",
        type=Path,
        help="the same model as a Hugging Face folder, for Trainer; default: that file, dequantized",
    )
    parser.add_argument("--epochs", type=float, default=1, help="of trainer; default: %(default)s")
    parser.add_argument("--trainer-rounds", type=int, default=2, help="default: %(default)s")
    options = parser.parse_args()
    unknown = set(options.parts) - {"steps", "trainer", "llama"} | set(options.shapes) - SHAPES.keys()
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: parts are steps, trainer, llama; shapes are {', '.join(SHAPES)}")
    llama_bench = [os.environ["LLAMA_BENCH"]] if os.environ.get("LLAMA_BENCH") else []
    if os.environ.get("LIBLLAMA"):
        llama_bench = [sys.executable, str(Path(__file__).with_name("llama_bench.py")), os.environ["LIBLLAMA"]]
    parts = options.parts or ["steps", "trainer", *(["llama"] if llama_bench else [])]
    if "llama" in parts and not llama_bench:
        parser.error("llama needs LLAMA_BENCH=/path/to/llama-bench or LIBLLAMA=/path/to/libllama.so")
    if ("trainer" in parts or "llama" in parts) and not options.model.exists():
        parser.error(f"--model {options.model}: there is no such file")
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "peers.log").write_text("")

    if "steps" in parts:
        for shape in options.shapes:
            tokens = options.tokens or (512 if shape == "tiny1b" else 2048)
            on_cpu = options.device == "cpu"
            for targets in ("q_proj,v_proj", "all-linear") if on_cpu else ("all-linear",):
                for recompute in (False, True) if on_cpu else (False,):
                    compare_steps(options, shape, targets, recompute, tokens)
    if "trainer" in parts:
        compare_trainer(options)
    if "llama" in parts:
        compare_llama(options, llama_bench)


if __name__ == "__main__":
    main()
