"""Supervised training: what methods start from, on the source, and the upper reference."""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from domainnorm.backbones import DomainModel, layer_scales, set_rows
from domainnorm.errors import DomainNormError
from domainnorm.methods.base import Batch, Method
from domainnorm.methods.heads import pretrained_part
from domainnorm.methods.reestimation import estimate_moments
from domainnorm.methods.roles import Roles, domains_of
from domainnorm.registry import register
from domainnorm.tasks import Task


def create_optimizer(name: str, parameters: Any, lr: float) -> torch.optim.Optimizer:
    """``adamw``; ``adam``, whose decay is a part of the gradient; ``sgd``, Nesterov's of 0.9."""
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True)
    return (torch.optim.Adam if name == "adam" else torch.optim.AdamW)(parameters, lr=lr)


def scheduled(
    optimizer: torch.optim.Optimizer, method: Method, schedule: str, warmup: float
) -> Any:
    """An optimizer whose rate follows `rate_at` at every step, in the form of Lightning."""
    if schedule == "constant" and not warmup:
        return optimizer
    steps = max(1, int(method.trainer.estimated_stepping_batches))
    if not method.automatic_optimization:  # Lightning counts the batches
        epochs = max(1, method.trainer.max_epochs or 1)
        steps = math.ceil(steps / epochs / method.accumulate) * epochs
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_at(schedule, step, steps, warmup)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


def rate_at(schedule: str, step: int, steps: int, warmup: float) -> float:
    """Factor of the peak rate at a step.

    It rises linearly in the first ``warmup · steps``. With ``t`` in [0, 1], the share of the others
    that is done, it is then ``(1 + cos πt) / 2`` (``cosine``), ``(1 - t)^0.9`` (``poly``), 1, 0.1
    and 0.01 for a third each (``step``), or 1 (``constant``).
    """
    rising = int(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    done = min(1.0, (step - rising) / max(1, steps - rising))
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    if schedule == "poly":
        return float((1 - done) ** 0.9)
    return 0.1 ** min(2, int(3 * done)) if schedule == "step" else 1.0


class SupervisedMethod(Method):
    """Supervised loss on the labelled domains, mixed in every batch, each under its own norms.

    Args:
        model: The network.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        lr: Peak learning rate.
        weight_decay: Weight decay of matrices and kernels, at least 0; norms and biases have none.
        optimizer: ``adamw``, ``adam`` (decay in the gradient), or ``sgd`` (Nesterov, 0.9).
        schedule: Learning rate after the warm-up: ``cosine``, ``poly``, ``step`` or ``constant``,
            see `rate_at`.
        warmup: Fraction of all steps in which the rate rises linearly, in [0, 1).
        layer_decay: Factor, in (0, 1], from the rate of one layer to that of the layer before it.
            Head and decoder have ``lr``; 1 gives all layers one rate. See `layer_scales`.
        backbone_rate: Factor, above 0, of the learning rate of the pretrained layers. Classifier,
            decoder, head and the method's own networks keep ``lr``.
        epochs: Epochs of this method; null for ``trainer.max_epochs``.
        moments: Final running moments of the trained domains. ``as_trained``: those of the
            augmented images of training. ``clean``: estimated anew after training, in one pass
            over whole images without augmentation.
    """

    labelled: str = "source"
    starts_from: str = "backbone"
    may_average: bool = True

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        optimizer: Literal["adamw", "adam", "sgd"] = "adamw",
        schedule: Literal["cosine", "poly", "step", "constant"] = "cosine",
        warmup: float = 0.1,
        layer_decay: float = 1.0,
        backbone_rate: float = 1.0,
        epochs: int | None = None,
        moments: Literal["as_trained", "clean"] = "as_trained",
    ) -> None:
        super().__init__(model, task, roles)
        self.lr = lr
        self.weight_decay = weight_decay
        self.optimizer = optimizer
        self.schedule = schedule
        self.warmup = warmup
        self.layer_decay = layer_decay
        self.backbone_rate = backbone_rate
        self.epochs = epochs
        self.moments = moments

    @property
    def max_epochs(self) -> int | None:
        """The recipe's ``epochs`` of this method."""
        return self.epochs

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Supervised loss of one mixed batch."""
        return {"supervised": self.task.loss(self.outputs(batch), batch["target"])}

    def optimized(self) -> list[Iterable[nn.Parameter]]:
        """Parameters of each optimizer: all that require gradients, those of own networks too."""
        return [self.parameters()]

    def on_fit_end(self) -> None:
        """Moments of clean images if wanted, and rows of domains without training images.

        These keep what they have in the source model, or else get the rows of those with images.
        """
        if self.moments == "clean":
            self._estimate_moments()
        if self.starts_from == "backbone":
            for model in self.networks:
                for name in self.roles.all:
                    if self.roles.lent((name,))[0] not in self.trained_domains:
                        set_rows(model, name, self.trained_domains)
        self.share_rows()

    @torch.no_grad()
    def _estimate_moments(self) -> None:
        roles = (domains_of(role, self.roles) for role in (self.labelled, self.unlabelled))
        seen = dict.fromkeys(chain.from_iterable(roles))
        for model in self.networks:
            passes = (self.sweep(domains=(name,), mixed=True) for name in seen)
            estimate_moments(model, chain.from_iterable(passes))

    def configure_optimizers(self) -> Any:
        """An optimizer for each of `optimized`, and a schedule per step.

        Raises:
            DomainNormError: Several optimizers and an accumulation of gradients.
        """
        chosen = self.optimized()
        if len(chosen) > 1 and self.accumulate > 1:
            raise DomainNormError(
                f"trainer.accumulate: {self.accumulate}, but this method makes several steps on a "
                "batch, whose gradients must not be added up; set it to 1"
            )
        groups = [self._parameter_groups(parameters) for parameters in chosen]
        made = [create_optimizer(self.optimizer, group, self.lr) for group in groups]
        return [scheduled(one, self, self.schedule, self.warmup) for one in made]

    def _parameter_groups(self, parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
        tables = {p for norm in self.model.norms() for p in norm.modulation.parameters()}
        scales = layer_scales(self.model, self.layer_decay) if self.layer_decay != 1 else {}
        body = pretrained_part(self.model) if self.backbone_rate != 1 else set()
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for parameter in parameters:
            if parameter.requires_grad:
                # A table of scales is (D, C): the usual test for one axis would decay it.
                scale = scales.get(parameter, 1.0)
                scale *= self.backbone_rate if parameter in body else 1.0
                kind = scale, parameter.ndim > 1 and parameter not in tables
                groups.setdefault(kind, []).append(parameter)
        return [
            {
                "params": groups[scale, decays],
                "weight_decay": self.weight_decay if decays else 0.0,
                "lr": self.lr * scale,
            }
            for scale, decays in sorted(groups, reverse=True)
        ]


class ImageMethod(SupervisedMethod):
    """Training of a small network from random weights, without what is for pretrained ones.

    Args:
        model: The network.
        task: What its images are for.
        roles: Source and target domains.
        lr: Peak learning rate.
        weight_decay: Weight decay of kernels, at least 0; norms and biases have none.
        optimizer: ``adamw``, ``adam`` (decay in the gradient), or ``sgd`` (Nesterov, 0.9).
        schedule: Learning rate after the warm-up: ``cosine``, ``poly``, ``step`` or ``constant``.
        warmup: Fraction of all steps in which the rate rises linearly, in [0, 1).
        epochs: Epochs of this method; null for ``trainer.max_epochs``.
    """

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        lr: float = 2e-3,
        weight_decay: float = 0.0,
        optimizer: Literal["adamw", "adam", "sgd"] = "adamw",
        schedule: Literal["cosine", "poly", "step", "constant"] = "cosine",
        warmup: float = 0.1,
        epochs: int | None = None,
    ) -> None:
        super().__init__(
            model,
            task,
            roles,
            lr=lr,
            weight_decay=weight_decay,
            optimizer=optimizer,
            schedule=schedule,
            warmup=warmup,
            epochs=epochs,
        )

    @abc.abstractmethod
    def distances(self) -> dict[str, dict[str, float]]:
        """How far images are from real test images, by domain and name."""

    def domains_told(self) -> dict[str, dict[str, float]]:
        """With `distances`."""
        told: dict[str, Any] = super().domains_told()
        return {name: {**told.get(name, {}), **one} for name, one in self.distances().items()}


@register("source_only")
class SourceOnly(SupervisedMethod):
    """Supervised training on the source; target images are tested under the source's norms.

    With several sources, the target's rows are the mean of theirs.
    """

    labelled: str = "source"
    starts_from: str = "backbone"


@register("oracle")
class Oracle(SupervisedMethod):
    """Supervised training on the target's own labels (target-supervised reference).

    It ignores ``data.shots``, and shows the best result that adaptation could reach.
    """

    labelled: str = "target"
    starts_from: str = "backbone"
    takes_shots: bool = False
