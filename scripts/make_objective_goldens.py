#!/usr/bin/env python3
"""Trains models/austen-7m with the losses of TRL, and writes what 20 steps come to.

    pip install torch==2.13.0 transformers==5.18.0 peft==0.21.0 trl==1.13.0 gguf==0.19.0     # Python 3.11
    scripts/make_objective_goldens.py

Writes java/lorica-core/src/test/resources/objectives.json: for each objective the losses and metrics of every step, and
of the adapter after them the norm of each tensor and a sum of its elements with signs. ObjectiveGoldensTest trains the
same in lorica, in f32.

Losses and metrics are computed by the code of TRL's trainers, from batches that are put together here; the loop around
them is that of transformers' Trainer. Both sides see the same: the values that the blocks of the GGUF file stand for, A
as lorica begins it, B = 0 (of distillation numbers that both sides make: the teacher is the base), the questions of the Pride and Prejudice set in their order, with their answer as the better
one and that of the question behind it as the worse one.
"""
import argparse
import json
from collections import defaultdict
from types import SimpleNamespace

import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer, LlamaForSequenceClassification
from trl import DPOTrainer, KTOTrainer, RewardTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.gkd import GKDTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.experimental.server_distillation.server_distillation_trainer import _add_tail_bucket, _jsd_divergence

import compare_with_peft as peft_side

TARGET = peft_side.TARGET.parent / "objectives.json"
N_STEPS, RANK, ALPHA, BATCH_SIZE, LEARNING_RATE, WEIGHT_DECAY = 20, 2, 4, 2, 1e-3, 0.01
# AdamW divides a gradient by its own size: of elements with next to none it makes steps as large as of the others, and of
# the rounding of f32 too. With an epsilon well above that rounding two programs can be compared element by element.
EPSILON = 1e-3
# Those whose rows are in one order on both sides.
TARGETS = ["v_proj", "o_proj", "up_proj", "down_proj"]
# A reward is that of the last token that is no padding; what is at the end of a text must not be taken for it.
PADDING = 3

CASES = {
    "dpo_sigmoid": ("dpo", dict(loss_type="sigmoid", beta=0.1)),
    "dpo_hinge": ("dpo", dict(loss_type="hinge", beta=0.1)),
    "dpo_ipo": ("dpo", dict(loss_type="ipo", beta=0.1)),
    "dpo_robust": ("dpo", dict(loss_type="robust", beta=0.1, label_smoothing=0.1)),
    "dpo_exo_pair": ("dpo", dict(loss_type="exo_pair", beta=0.1, label_smoothing=0.01)),
    "dpo_apo_zero": ("dpo", dict(loss_type="apo_zero", beta=0.1)),
    "dpo_apo_down": ("dpo", dict(loss_type="apo_down", beta=0.1)),
    "dpo_sigmoid_norm": ("dpo", dict(loss_type="sigmoid_norm", beta=0.1)),
    "orpo": ("orpo", dict(beta=0.1)),
    "simpo": ("cpo", dict(loss_type="simpo", beta=2.0, simpo_gamma=0.5, cpo_alpha=0.0)),
    "cpo_sigmoid": ("cpo", dict(loss_type="sigmoid", beta=0.1, cpo_alpha=1.0, label_smoothing=0.1)),
    "cpo_ipo": ("cpo", dict(loss_type="ipo", beta=0.1, cpo_alpha=0.5)),
    "kto": ("kto", dict(beta=0.1, desirable_weight=1.0, undesirable_weight=0.8)),
    "reward": ("reward", dict(center_rewards_coefficient=0.01)),
    "sft_weighted": ("sft", dict(weights=[0.25, 1.0, 2.5])),
    "distill_jsd": ("distill", dict(beta=0.5, temperature=1.0, loss_top_k=0)),
    "distill_forward": ("distill", dict(beta=0.0, temperature=1.5, loss_top_k=0)),
    "distill_reverse": ("distill", dict(beta=1.0, temperature=2.0, loss_top_k=0)),
    "distill_top_jsd": ("distill", dict(beta=0.3, temperature=1.0, loss_top_k=8)),
    "distill_top_forward": ("distill", dict(beta=0.0, temperature=1.0, loss_top_k=16)),
    "distill_top_reverse": ("distill", dict(beta=1.0, temperature=1.2, loss_top_k=4)),
}
# B of a student that is no copy of its teacher: numbers of so many at the most.
STUDENT_B = 0.5


def examples():
    """(prompt, better answer, worse answer) as ids."""
    tokenizer = AutoTokenizer.from_pretrained(peft_side.MODEL.parent, gguf_file=peft_side.MODEL.name)
    records = json.loads(peft_side.DATA.read_text())[:N_STEPS * BATCH_SIZE + 1]
    prompts = [tokenizer.encode(f"### Instruction:\n{r['question']}\n\n### Response:\n", add_special_tokens=False)
               for r in records]
    answers = [tokenizer.encode(r["answer"], add_special_tokens=False) + [tokenizer.eos_token_id] for r in records]
    return [(prompts[i], answers[i], answers[i + 1]) for i in range(len(records) - 1)]


def padded(rows, value):
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


def sequences(pairs):
    """input_ids, attention_mask, completion_mask of [(prompt, answer)]."""
    return (padded([p + a for p, a in pairs], 0), padded([[1] * len(p + a) for p, a in pairs], 0),
            padded([[0] * len(p) + [1] * len(a) for p, a in pairs], 0))


def batch_of(kind, rows, step):
    chosen, rejected = [(p, c) for p, c, _ in rows], [(p, r) for p, _, r in rows]
    if kind == "dpo":
        return dict(zip(("input_ids", "attention_mask", "completion_mask"), sequences(chosen + rejected)))
    if kind == "reward":
        ids, mask, _ = sequences(chosen + rejected)
        return {"input_ids": torch.where(mask == 1, ids, PADDING), "attention_mask": mask}
    if kind == "kto":
        # Good and other answers by turns.
        label = [(step * BATCH_SIZE + i) % 3 != 1 for i in range(len(rows))]
        own = [(p, c if good else r) for (p, c, r), good in zip(rows, label)]
        other = [(p, own[i - 1][1]) for i, (p, _) in enumerate(own)]
        batch = dict(zip(("input_ids", "attention_mask", "completion_mask"), sequences(own)))
        batch |= dict(zip(("KL_input_ids", "KL_attention_mask", "KL_completion_mask"), sequences(other)))
        batch["label"] = torch.tensor(label)
        return batch
    batch = {}
    for side, pairs in (("chosen", chosen), ("rejected", rejected)):
        ids, mask, completion = sequences(pairs)
        batch |= {f"{side}_input_ids": ids, f"{side}_attention_mask": mask,
                  f"{side}_labels": torch.where(completion == 1, ids, -100)}
    return batch


def trainer_of(kind, model, settings):
    """TRL's trainer without what its constructor does: only the loss is asked of it."""
    cls = {"dpo": DPOTrainer, "kto": KTOTrainer, "orpo": ORPOTrainer, "cpo": CPOTrainer,
           "reward": RewardTrainer}[kind]
    trainer = cls.__new__(cls)
    trainer.model, trainer.ref_model, trainer.accelerator = model, None, Accelerator(cpu=True)
    trainer.args = SimpleNamespace(gradient_checkpointing=False, gradient_checkpointing_kwargs=None)
    trainer.gradient_checkpointing = False
    trainer.aux_loss_enabled = trainer.use_liger_kernel = trainer.precompute_ref_logps = False
    trainer.is_encoder_decoder = trainer.use_weighting = trainer._is_vlm = False
    trainer.padding_value = trainer.pad_token_id = 0
    trainer._metrics = {"train": defaultdict(list)}
    trainer._total_train_tokens, trainer._tp_size = 0, 1
    trainer.ld_alpha, trainer.f_divergence_type, trainer.alpha = None, "reverse_kl", 0.0
    trainer.calculate_KL, trainer.label_smoothing = True, 0.0
    for name, value in settings.items():
        setattr(trainer, name, value)
    if kind == "dpo":
        trainer.loss_types, trainer.loss_weights = [settings["loss_type"]], [1.0]
    if kind == "kto":
        trainer.loss_type = "kto"
    if kind == "reward":
        trainer.args.center_rewards_coefficient = settings["center_rewards_coefficient"]
    return trainer


def answers(rows):
    ids, mask, completion = sequences([(p, c) for p, c, _ in rows])
    return ids, mask, completion[:, 1:].bool()


def weighted_sft(model, rows, step, weights):
    """Cross-entropy by PyTorch, a weight for each answer, divided by the sum of the weights of its tokens."""
    ids, mask, learned = answers(rows)
    logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    weight = torch.tensor([weights[(step * BATCH_SIZE + i) % len(weights)] for i in range(len(rows))])
    weight = weight.unsqueeze(1) * learned
    return (nll * weight).sum() / weight.sum(), {}


def distillation(model, rows, beta, temperature, loss_top_k):
    """GKDTrainer's loss, or ServerDistillationTrainer's of the teacher's likeliest tokens, with a bucket for the rest."""
    ids, mask, learned = answers(rows)
    with torch.no_grad(), model.disable_adapter():
        teacher = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    student = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
    log_p = torch.log_softmax(student / temperature, -1)[learned]
    log_q = torch.log_softmax(teacher / temperature, -1)[learned]
    if loss_top_k == 0:
        labels = torch.where(learned, ids[:, 1:], -100)
        loss = GKDTrainer.generalized_jsd_loss(student, teacher, labels, beta=beta, temperature=temperature)
    else:
        log_q, top = log_q.topk(loss_top_k, -1)
        log_p = log_p.gather(-1, top)
        support = torch.ones_like(top, dtype=torch.bool)
        p, support_and_rest = _add_tail_bucket(log_p, support)
        q, _ = _add_tail_bucket(log_q, support)
        loss = _jsd_divergence(p, q, beta, support_and_rest).sum() / len(log_p)
    metrics = {"mass/model": log_p.exp().sum(-1).clamp(max=1).mean(),
               "mass/teacher": log_q.exp().sum(-1).clamp(max=1).mean(),
               "agreement": (log_p.argmax(-1) == log_q.argmax(-1)).float().mean()}
    return loss, metrics


def reward_model(base):
    """The base with a head of one output, which begins as numbers that both sides make."""
    base.config.num_labels, base.config.pad_token_id = 1, PADDING
    model = LlamaForSequenceClassification(base.config)
    model.model.load_state_dict(base.model.state_dict())
    with torch.no_grad():
        numbers = (peft_side.philox(11, base.config.hidden_size) >> 8).astype("float64") * 2.0**-24 - 0.5
        model.score.weight.copy_(torch.from_numpy(numbers.astype("float32")).reshape(1, -1))
    return model


def tensor_of(parameter):
    """The tensor of the base that a parameter of a LoRA belongs to."""
    name = parameter.removeprefix("base_model.model.").split(".lora_")[0]
    return peft_side.TENSORS[name + ".weight"]


def train(kind, settings, data):
    base = peft_side.load_model()
    task = "SEQ_CLS" if kind == "reward" else "CAUSAL_LM"
    model = get_peft_model(reward_model(base) if kind == "reward" else base,
                           LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type=task))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_A" in name:
                parameter.copy_(torch.from_numpy(peft_side.first_a(tensor_of(name), parameter.shape)))
        for name, parameter in model.named_parameters():
            if kind == "distill" and "lora_B" in name:
                numbers = (peft_side.philox(13, parameter.numel()) >> 8).astype("float64") * 2.0**-24 - 0.5
                parameter.copy_(torch.from_numpy((2 * STUDENT_B * numbers).astype("float32")).reshape(parameter.shape))
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, eps=EPSILON)
    trainer = None if kind in ("sft", "distill") else trainer_of(kind, model, settings)
    steps = []
    for step in range(N_STEPS):
        rows = data[step * BATCH_SIZE:(step + 1) * BATCH_SIZE]
        batch = None if trainer is None else batch_of(kind, rows, step)
        optimizer.zero_grad()
        if kind == "sft":
            loss, metrics = weighted_sft(model, rows, step, **settings)
        elif kind == "distill":
            loss, metrics = distillation(model, rows, **settings)
        elif kind in ("dpo", "kto", "reward"):
            trainer._metrics["train"].clear()
            loss = (trainer.compute_loss(model, batch) if kind == "reward"
                    else trainer._compute_loss(model, batch, False))
            metrics = {name: values[-1] for name, values in trainer._metrics["train"].items()}
        else:
            loss, metrics = trainer.get_batch_loss_metrics(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        kept = ("rewards/", "logps/", "nll_loss", "log_odds", "kl", "accuracy", "margin", "mean_reward", "min_reward",
                "max_reward", "mass/", "agreement")
        metrics = {k: float(f"{float(torch.as_tensor(v).detach()):.8g}")
                   for k, v in sorted(metrics.items()) if k.startswith(kept)}
        if settings.get("cpo_alpha") == 0:
            metrics.pop("nll_loss")
        steps.append({"loss": float(f"{loss.item():.8g}"), **metrics})
    tensors = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if "score" in name:
            ours = "cls.output.weight"
        else:
            ours = f"{tensor_of(name).name}.lora_{name.split('.lora_')[1][0].lower()}"
        values = parameter.detach().double().flatten()
        signs = 1 - 2 * torch.from_numpy((peft_side.philox(7, len(values)) & 1).astype("float64"))
        tensors[ours] = [
            float(f"{values.norm().item():.8g}"), float(f"{(values * signs).sum().item():.8g}")]
    return {"settings": settings, "steps": steps, "adapter": tensors}


def write(golden):
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(golden.items())]
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = examples()
    golden = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    golden["settings"] = {"steps": N_STEPS, "rank": RANK, "alpha": ALPHA, "seed": peft_side.SEED,
                          "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE, "weight_decay": WEIGHT_DECAY,
                          "adam_epsilon": EPSILON, "target_modules": ",".join(TARGETS)}
    for name in arguments.cases:
        kind, settings = CASES[name]
        golden[name] = train(kind, settings, data)
        steps = golden[name]["steps"]
        write(golden)
        print(f"{name}: {steps[0]['loss']:.4f} ... {steps[-1]['loss']:.4f}", flush=True)


if __name__ == "__main__":
    main()
