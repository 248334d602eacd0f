"""A method on a tiny transfer of real digits, fitted by a real trainer that writes down batches."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from domainnorm.backbones import DomainModel, create_model, data_config
from domainnorm.data import DomainDataModule, Loading, Preprocessing, Shots, Stream, draw_shots
from domainnorm.data.datasets import Scans
from domainnorm.methods import Method, Roles, domains_of
from domainnorm.registry import METHODS
from domainnorm.run.machine import quiet_lightning
from domainnorm.tasks.classification import Classification
from domainnorm.tasks.generation import Generation
from domainnorm.tasks.generator import create_generator
from domainnorm.tasks.translation import Translation
from domainnorm.tasks.translator import create_translator

# Options that make a short stream enough.
SMALL = {"cotta": {"augmentations": 2}, "note": {"memory": 6}, "rotta": {"memory": 6}}
ONE = Roles(("clean",), ("colour_cast",))
TWO = Roles(("clean", "textured"), ("colour_cast",))


class Recorder(Callback):
    """Keeps every batch that reaches a training step, and every logged loss."""

    def __init__(self) -> None:
        self.batches: list[dict[str, torch.Tensor]] = []
        self.losses: list[float] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append({name: tensor.clone() for name, tensor in batch.items()})
        self.rates += [group["lr"] for o in trainer.optimizers for group in o.param_groups[:1]]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if outputs is not None and "loss" in outputs:
            self.losses.append(float(outputs["loss"]))


@dataclass
class Fitted:
    method: Method
    data: DomainDataModule
    trainer: Trainer
    seen: Recorder
    before: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def model(self) -> DomainModel:
        return self.method.model


@functools.cache
def scans() -> Scans:
    return Scans(per_domain=40)


def make_model(norm: Any = "dsbn", roles: Roles = ONE, **options: Any) -> DomainModel:
    return create_model("test_resnet", 10, norm, roles.all, **options)


VIEWS = {"weak": [], "strong": [{"name": "RandomBrightnessContrast", "p": 1.0}]}


def make_data(
    name: str, model: DomainModel, roles: Roles, batch_size: int, shots: int = 0, **loading: Any
) -> DomainDataModule:
    method = METHODS.load(name) if isinstance(name, str) else name
    given = {
        "batch_size": batch_size,
        "balance": method.balance,
        "strong": method.views == "two",
        "stream": Stream(batch_size=batch_size) if method.protocol == "online" else None,
    }
    labelled = domains_of(method.labelled, roles)
    drawn = {name: draw_shots(scans(), name, shots, 0) for name in roles.target if shots}
    return DomainDataModule(
        scans(),
        domain_names=roles.all,
        labelled=[name for name in labelled if name not in drawn],
        shots=Shots(drawn),
        unlabelled=domains_of(method.unlabelled, roles),
        preprocessing=Preprocessing.from_config(data_config(model), 32),
        augment=dict.fromkeys(roles.target, VIEWS) if method.views == "two" else {},
        loading=Loading(**{**given, **loading}),
    )


def model_of(name: str, norm: Any = "dsbn", roles: Roles = ONE) -> DomainModel:
    """A network for the task that a method is for."""
    tasks = METHODS.load(name).tasks
    if tasks == ("translation",):
        return create_translator("test_resnet", norm, roles.all, width=4)
    if tasks == ("generation",):
        return create_generator("test_resnet", 10, norm, roles.all, width=8, blocks=1)
    return make_model(norm, roles)


def make(name: str, model: DomainModel, roles: Roles = ONE, **options: Any) -> Method:
    method = METHODS.load(name) if isinstance(name, str) else name
    digits = [str(digit) for digit in range(10)]
    own = {("translation",): Translation, ("generation",): Generation}
    task = own.get(method.tasks, Classification)(digits)
    task.look_through("test_resnet")
    return method(model, task, roles, **options)


def fit(
    name: str,
    model: DomainModel | None = None,
    roles: Roles = ONE,
    *,
    epochs: int = 1,
    batch_size: int = 16,
    clip: float | None = None,
    accumulate: int = 1,
    precision: str = "32-true",
    shots: int = 0,
    loading: dict[str, Any] | None = None,
    **options: Any,
) -> Fitted:
    """Fit a method by name or class; one that is online follows the stream of the target."""
    quiet_lightning()
    if model is None:
        model = model_of(name, roles=roles) if isinstance(name, str) else make_model(roles=roles)
    before = copy.deepcopy(model.state_dict())
    method = make(name, model, roles, **options)
    data = make_data(name, model, roles, batch_size, shots, **(loading or {}))
    method.eval_domains = data.val_domains
    method.clip, method.accumulate = clip, accumulate
    seen = Recorder()
    automatic = method.automatic_optimization
    trainer = Trainer(
        precision=precision,
        gradient_clip_val=clip if automatic else None,
        accumulate_grad_batches=accumulate if automatic else 1,
        inference_mode=method.protocol != "online",
        max_epochs=method.max_epochs or epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[seen],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=None if method.eval_domains else 0,
    )
    if method.protocol == "online":
        method.eval_domains = data.test_domains
        trainer.test(method, datamodule=data, verbose=False)
    else:
        trainer.fit(method, datamodule=data)
    return Fitted(method, data, trainer, seen, before)


@functools.cache
def _source_state(norm: str, roles: Roles) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return fit("source_only", make_model(norm, roles), roles, epochs=2).model.state_dict()


def source_model(norm: str = "dsbn", roles: Roles = ONE) -> DomainModel:
    """A model that two epochs of source training have left, a fresh copy for each caller."""
    model = make_model(norm, roles)
    model.load_state_dict(_source_state(norm, roles))
    return model


def images(domain: str, split: str = "test") -> torch.Tensor:
    """Preprocessed images of one domain and split, (N, 3, 32, 32)."""
    model = make_model()
    data = make_data("oracle", model, ONE, 16)
    found = [
        data.evaluation_pipeline(scans().image(index), 0)
        for index, record in enumerate(scans().records)
        if record.domain == domain and record.split == split
    ]
    return torch.stack(found)


@torch.no_grad()
def apart_in_colours(model: DomainModel) -> tuple[float, float]:
    """Mean colours of clean images from those of the colour cast, before and after translation."""

    def colours(batch: torch.Tensor) -> torch.Tensor:
        return batch.mean((0, 2, 3))

    before, wanted = images("clean"), colours(images("colour_cast"))
    made = model.eval()(before, "colour_cast")
    return tuple((colours(one) - wanted).norm().item() for one in (before, made))


@torch.no_grad()
def logits(model: DomainModel, domain: str) -> torch.Tensor:
    """Outputs on one domain's test images under its own norms."""
    return copy.deepcopy(model).eval()(images(domain), domain)


def changed(before: dict[str, torch.Tensor], model: DomainModel) -> set[str]:
    """Names of tensors that are no longer bit for bit the same."""
    now = model.state_dict()
    return {name for name in before if not torch.equal(before[name], now[name])}


def rows_changed(before: dict[str, torch.Tensor], model: DomainModel, names: set[str]) -> set[int]:
    """Rows in which any of the named (D, ...) tensors differ."""
    now = model.state_dict()
    return {
        row
        for name in names
        for row in range(len(now[name]))
        if not torch.equal(before[name][row], now[name][row])
    }
