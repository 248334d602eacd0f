"""What other tools call the keys of a recipe: an unknown key is answered by meaning first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from domainnorm.errors import unknown

# Names of Lightning, of the scripts of timm and of trainers in general; and keys without section.
MEANINGS = {
    **dict.fromkeys(("model", "arch", "architecture", "network"), "backbone"),
    **{name: f"backbone.options.{name}" for name in ("drop_rate", "drop_path_rate", "in_chans")},
    "dataset": "data",
    **dict.fromkeys(("root_dir", "data_dir", "data_root", "data_path"), "data.root"),
    **dict.fromkeys(("image_size", "img_size", "input_size", "resolution"), "data.image_size"),
    **dict.fromkeys(("batch_size", "train_batch_size", "bs"), "data.batch_size"),
    **dict.fromkeys(("val_batch_size", "test_batch_size"), "data.eval_batch_size"),
    **dict.fromkeys(("num_workers", "workers"), "data.num_workers"),
    **dict.fromkeys(("sampler", "batch_sampler"), "data.sampling"),
    **dict.fromkeys(("source_domain", "source_domains"), "data.source"),
    **dict.fromkeys(("target_domain", "target_domains"), "data.target"),
    **dict.fromkeys(("augmentation", "augmentations", "transform", "transforms", "aa"), "augment"),
    **dict.fromkeys(("algorithm", "adaptation"), "method"),
    **dict.fromkeys(("lr", "learning_rate", "base_lr"), "method.lr"),
    **dict.fromkeys(("weight_decay", "wd"), "method.weight_decay"),
    **dict.fromkeys(("optimizer", "optim", "opt"), "method.optimizer"),
    **dict.fromkeys(("scheduler", "lr_scheduler", "lr_schedule", "sched"), "method.schedule"),
    **dict.fromkeys(("warmup_steps", "warmup_epochs", "warmup_ratio"), "method.warmup"),
    **dict.fromkeys(("max_epochs", "epochs", "num_epochs", "n_epochs"), "trainer.max_epochs"),
    **dict.fromkeys(
        ("accumulate_grad_batches", "gradient_accumulation_steps", "grad_accum_steps"),
        "trainer.accumulate",
    ),
    **dict.fromkeys(
        ("gradient_clip_val", "clip_grad", "grad_clip", "max_grad_norm"), "trainer.gradient_clip"
    ),
    "limit_train_batches": "trainer.limit_batches",
    **dict.fromkeys(("early_stopping", "early_stopping_patience"), "trainer.patience"),
    **dict.fromkeys(("save_top_k", "keep"), "trainer.keep_best"),
    **dict.fromkeys(("every_n_epochs", "save_freq"), "trainer.keep_every"),
    **dict.fromkeys(("model_ema", "ema_decay", "model_ema_decay"), "trainer.ema"),
    **dict.fromkeys(("gpus", "num_gpus", "devices"), "trainer.devices"),
    "accelerator": "trainer.accelerator",
    **dict.fromkeys(("precision", "amp", "dtype"), "trainer.precision"),
    "callbacks": "trainer.callbacks",
    **dict.fromkeys(("logger", "loggers"), "trainer.logger"),
    **dict.fromkeys(("monitor", "checkpoint_metric"), "evaluation.selection"),
    **dict.fromkeys(("seeds", "random_seed", "seed_everything"), "seed"),
    **dict.fromkeys(("ckpt", "ckpt_path", "checkpoint_path"), "checkpoint"),
}
# Keys that other tools need.
_NEEDLESS = {"num_classes": "the dataset says which classes there are; leave it out"}


def unknown_key(name: Any, known: Iterable[str], section: str = "") -> str:
    """The sentence that answers an unknown key: what is meant, or looks like it, and the list.

    Args:
        name: The key.
        known: Keys that its section has.
        section: Dotted key of the section; empty for the recipe itself.
    """
    known = list(known)
    word = str(name).lower().replace("-", "_")
    if word in _NEEDLESS:
        return f"unknown key '{name}': {_NEEDLESS[word]}"
    own = "method" if section.startswith("compare") else section
    place, _, last = MEANINGS.get(word, "").rpartition(".")
    if last in known:
        return unknown("key", name, known, last)
    if last == own and "name" in known:  # data.dataset
        return unknown("key", name, known, "name")
    meant = f"{place}.{last}" if place else last
    return unknown("key", name, known, "" if place == own else meant)
