"""What the norms get to know of the domain in a test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torchmetrics import Metric

from domainnorm.backbones import DomainModel
from domainnorm.encoders import Estimate
from domainnorm.labels import UNSEEN

Conditioned: TypeAlias = Literal["id", "estimate", "id_or_estimate", "mixture"]


class DomainsTold(Metric):
    """How often the encoder is right about the domain of an image, and how often at home with it.

    ``compute`` gives ``domain_accuracy``, the share of images whose most probable domain is
    theirs, and ``domain_known``, the share that is near enough to a known domain.
    """

    right: Tensor
    known: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "known", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, estimate: Estimate, domain: Tensor) -> None:
        """Count one batch with labels (N,)."""
        self.right += (estimate.domain == domain).sum()
        self.known += estimate.is_known.sum()
        self.total += domain.numel()

    def compute(self) -> dict[str, float]:
        """Shares of the images so far."""
        return {
            "domain_accuracy": float(self.right / self.total),
            "domain_known": float(self.known / self.total),
        }


def estimate_of(model: DomainModel, batch: Mapping[str, Any]) -> Estimate:
    """What the model's encoder says of a batch, of whatever it reads of it."""
    return model.estimate(batch["image"], batch["attributes"] if model.reads_attributes else None)


@contextmanager
def estimating(model: DomainModel, condition: Conditioned) -> Iterator[None]:
    """Inside the block the model makes of hidden domains what ``condition`` says."""
    if condition == "id":
        yield
        return
    former = model.unseen
    model.unseen = "mixture" if condition == "mixture" else "estimate"
    try:
        yield
    finally:
        model.unseen = former


def hide_domains(model: DomainModel, domain: Tensor, condition: Conditioned) -> Tensor:
    """Labels (N,) with -1 where the norms may not know the domain.

    ``id`` hides none, ``id_or_estimate`` those whose images the encoder has not seen, the others
    all.
    """
    if condition == "id":
        return domain
    if condition == "id_or_estimate" and model.encoder is not None:
        return torch.where(model.encoder.gaussians.known[domain], domain, UNSEEN)
    return torch.full_like(domain, UNSEEN)
