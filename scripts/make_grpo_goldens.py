#!/usr/bin/env python3
"""Asks TRL's GRPOTrainer for advantages, losses, gradients and metrics of given answers, rewards and log-probabilities.

    pip install torch==2.13.0 transformers==5.18.0 trl==1.13.0     # Python 3.11
    scripts/make_grpo_goldens.py

Writes java/lorica-core/src/test/resources/grpo.json, which GrpoTest compares with. All numbers come from the code of
TRL's trainer; only the model and its generation are replaced by what is given here.
"""
import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch
from accelerate import Accelerator
from trl import GRPOTrainer

TARGET = Path(__file__).parent.parent / "java/lorica-core/src/test/resources/grpo.json"
PROMPTS, GENERATIONS, MOST = 2, 4, 9
LENGTHS = [3, 9, 1, 5, 9, 2, 7, 4]  # those of 9 tokens were cut off
EOS = 1

BASE = dict(loss_type="dapo", beta=0.0, epsilon_low=0.2, epsilon_high=0.2, scale_rewards="group",
            mask_truncated_completions=False, iterations=2, importance_sampling_level="token", delta=0.0,
            use_bias_correction_kl=True)
CASES = {
    "dapo": {},
    "first_iteration": dict(iterations=1),
    "grpo_kl": dict(loss_type="grpo", beta=0.04),
    "bnpo_clip_higher": dict(loss_type="bnpo", epsilon_high=0.28),
    "dr_grpo_unscaled": dict(loss_type="dr_grpo", scale_rewards="none", beta=0.1),
    "batch_masked": dict(scale_rewards="batch", mask_truncated_completions=True),
    "kl_uncorrected": dict(beta=0.04, use_bias_correction_kl=False),
    "sequence": dict(importance_sampling_level="sequence", beta=0.05, epsilon_low=0.05, epsilon_high=0.08),
    "sequence_masked": dict(importance_sampling_level="sequence", loss_type="grpo", epsilon_low=0.03,
                            epsilon_high=0.03, mask_truncated_completions=True),
    "delta": dict(delta=1.4, loss_type="bnpo"),
    "cispo": dict(loss_type="cispo", epsilon_high=1.2),
    "sapo": dict(loss_type="sapo"),
    "luspo": dict(loss_type="luspo", importance_sampling_level="sequence", epsilon_low=0.05, epsilon_high=0.05),
}


class Tokenizer:
    pad_token_id, eos_token_id = 0, EOS

    def batch_decode(self, ids, **_):
        return ["" for _ in ids]

    def decode(self, *_, **__):
        return ""


def given():
    random = torch.Generator().manual_seed(5)
    n = PROMPTS * GENERATIONS
    logps = -3 * torch.rand(n, MOST, generator=random)
    old = logps + 0.4 * torch.randn(n, MOST, generator=random)
    ref = logps + 0.5 * torch.randn(n, MOST, generator=random)
    rewards = torch.round(torch.randn(n, 2, generator=random) * 100) / 100
    rewards[2, 1] = torch.nan  # of which one function says nothing
    rewards[5, :] = torch.nan  # and both
    return logps, old, ref, rewards


def trainer_of(settings, old, ref, rewards):
    trainer = GRPOTrainer.__new__(GRPOTrainer)
    trainer.model = SimpleNamespace(training=True, is_gradient_checkpointing=False)
    trainer.ref_model = SimpleNamespace()
    trainer.accelerator = Accelerator(cpu=True)
    trainer.environment_factories = trainer.environments = trainer.tools = None
    trainer.gradient_checkpointing = False
    trainer._tokenizer = trainer.processing_class = Tokenizer()
    trainer.pad_to_multiple_of = None
    trainer.num_generations, trainer.num_iterations = GENERATIONS, settings["iterations"]
    trainer.args = SimpleNamespace(
        per_device_train_batch_size=len(LENGTHS), steps_per_generation=1, gradient_accumulation_steps=1,
        gradient_checkpointing_kwargs=None, delta=settings["delta"] or None, sapo_temperature_pos=1.0,
        sapo_temperature_neg=1.05, use_bias_correction_kl=settings["use_bias_correction_kl"])
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = trainer._is_vlm = False
    trainer.multi_objective_aggregation = "sum_then_normalize"
    trainer.reward_weights = torch.tensor([1.0, 0.5])
    trainer.reward_funcs, trainer.reward_func_names = [None, None], ["a", "b"]
    trainer.top_entropy_quantile = 1.0
    trainer.off_policy_mask_threshold, trainer._entropy_bonus_enabled = None, False
    trainer.aux_loss_enabled, trainer.log_multimodal = False, False
    trainer.max_completion_length, trainer.current_gradient_accumulation_steps = MOST, 1
    trainer._metrics = {"train": defaultdict(list)}
    trainer._logs = {"prompt": [], "completion": [], "rewards": defaultdict(list), "advantages": [],
                     "extra": defaultdict(list)}
    trainer._pending_extra_logs, trainer._pending_metrics = {}, {}
    trainer.chat_template_kwargs = {}
    for name, value in settings.items():
        setattr(trainer, name, value)
    answers = [[7] * (n - 1) + [7 if n == MOST else EOS] for n in LENGTHS]
    trainer._generate = lambda prompts: (
        [[3, 4]] * len(LENGTHS), answers, None, [""] * len(LENGTHS), None, {}, None, None)
    trainer._calculate_rewards = lambda *_: rewards
    trainer._get_per_token_logps_and_entropies = lambda model, *_, **__: (
        ref if model is trainer.ref_model else old, torch.zeros_like(old), None)
    return trainer


def case(settings):
    settings = BASE | settings
    logps, old, ref, rewards = given()
    trainer = trainer_of(settings, old, ref, rewards)
    inputs = trainer._generate_and_score_completions([{"prompt": "p"}] * len(LENGTHS))
    logps.requires_grad_(True)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logps, torch.zeros_like(logps), None)
    loss = trainer._compute_loss(None, inputs)
    loss.backward()
    kept = ("reward", "rewards/", "frac_", "clip_ratio/", "kl", "cispo_")
    return {"settings": settings, "advantages": inputs["advantages"].tolist(), "loss": loss.item(),
            "gradient": [row[:n].tolist() for row, n in zip(logps.grad, LENGTHS)],
            "metrics": {k: v[-1] for k, v in sorted(trainer._metrics["train"].items()) if k.startswith(kept)}}


def main():
    logps, old, ref, rewards = given()
    cut = lambda x: [row[:n].tolist() for row, n in zip(x, LENGTHS)]
    golden = {"generations": GENERATIONS, "max_completion_length": MOST, "logps": cut(logps), "old": cut(old),
              "ref": cut(ref), "weights": [1.0, 0.5],
              "rewards": [[None if x != x else x for x in row] for row in rewards.T.tolist()],
              "cases": {name: case(settings) for name, settings in CASES.items()}}
    TARGET.write_text(json.dumps(golden, indent=1) + "\n")
    print(f"{TARGET}: {', '.join(CASES)}")


if __name__ == "__main__":
    main()
