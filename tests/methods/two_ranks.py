"""Fits of methods in float64 on one or two processes; the first writes their states."""

from __future__ import annotations

import sys

import torch
from lightning import Trainer

from domainnorm.run.machine import quiet_lightning
from tests.methods.bench import ONE, TWO, make, make_data, make_model
from tests.methods.test_base import OwnStep, TwoHeads

# Sees two sources; the others one.
SOURCES = {"groupdro": TWO}
CASES = {
    "supervised": ("source_only", {}),
    "own step": (OwnStep, {}),
    "two optimizers": (TwoHeads, {}),
    "dann": ("dann", {"hidden": 8}),
    "dsbn2": ("dsbn2", {"hidden": 8}),
    "aad": ("aad", {"beta": 2.0}),
    "sfda": ("sfda", {}),
    "cdan": ("cdan", {"hidden": 8, "entropy": True, "map_size": 32}),
    "coral": ("coral", {}),
    "mmd": ("mmd", {}),
    "mcd": ("mcd", {"generator_steps": 2}),
    "mcc": ("mcc", {}),
    "bnm": ("bnm", {}),
    "infomax": ("infomax", {}),
    "groupdro": ("groupdro", {"step_size": 1.0}),
    "swad": ("swad", {}),
    "mean_teacher": ("mean_teacher", {"threshold": 0.0, "decay": 0.5}),
    "fixmatch": (
        "fixmatch",
        {
            "threshold_rule": "free",
            "prior": "estimated",
            "label_decay": 0.5,
            "fairness_weight": 1.0,
        },
    ),
    "daformer": ("daformer", {"threshold": 0.12, "decay": 0.5}),
    "default": ("default", {"threshold_rule": "fixed", "threshold": 0.12, "certainty": 0.0}),
    "confusion": (
        "default",
        {"threshold": 0.12, "threshold_rule": "fixed", "certainty": 0.0, "confusion_weight": 1.0},
    ),
    "clean moments": ("mean_teacher", {"threshold": 0.0, "decay": 0.5, "moments": "clean"}),
    "shot": ("shot", {}),
    "unsure": ("default", {"certainty": 1.0}),
}


def state(case: str, devices: int) -> tuple[dict[str, torch.Tensor], int]:
    kind, options = CASES[case]
    torch.manual_seed(0)
    roles = SOURCES.get(case, ONE)
    method = make(kind, make_model(roles=roles), roles, **options)
    method.clip = 1.0
    data = make_data(kind, method.model, roles, 16 // devices)
    validates = case == "swad"
    method.eval_domains = data.val_domains if validates else ()
    trainer = Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        precision="64-true",
        gradient_clip_val=method.clip if method.automatic_optimization else None,
        max_epochs=2,
        use_distributed_sampler=False,
        limit_val_batches=None if validates else 0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(method, datamodule=data)
    return method.state_dict(), trainer.global_rank


if __name__ == "__main__":
    quiet_lightning()
    states, rank = {}, 0
    for case in CASES:
        states[case], rank = state(case, int(sys.argv[2]))
    if rank == 0:
        torch.save(states, sys.argv[1])
    if torch.distributed.is_initialized():
        # Gloo's threads must hold no tensor when the interpreter ends: it would abort.
        torch.distributed.destroy_process_group()
