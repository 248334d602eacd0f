"""What the norms get to know of the domain in a test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torchmetrics import Metric

from domainnorm.backbones import DomainModel, told_weights
from domainnorm.encoders import Estimate
from domainnorm.labels import UNSEEN

Conditioned: TypeAlias = Literal["id", "estimate", "id_or_estimate", "mixture", "embedding"]


class DomainsTold(Metric):
    """How often the encoder is right about the domain of an image, and how often at home with it.

    ``compute`` gives ``domain_accuracy``, the share of images whose most probable domain is
    theirs, among those of domains that the encoder has seen (nan where there are none), and
    ``domain_known``, the share of all that is near enough to a known domain.
    """

    right: Tensor
    asked: Tensor
    known: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "asked", "known", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, estimate: Estimate, domain: Tensor) -> None:
        """Count one batch with labels (N,)."""
        seen = estimate.distance.gather(1, domain[:, None]).isfinite()
        self.right += (seen[:, 0] & (estimate.domain == domain)).sum()
        self.asked += seen.sum()
        self.known += estimate.is_known.sum()
        self.total += domain.numel()

    def compute(self) -> dict[str, float]:
        """Shares of the images so far."""
        return {
            "domain_accuracy": float(self.right / self.asked) if self.asked else math.nan,
            "domain_known": float(self.known / self.total),
        }


def estimate_of(model: DomainModel, batch: Mapping[str, Any]) -> Estimate:
    """What the model's encoder says of a batch, of whatever it reads of it."""
    return model.estimate(batch["image"], batch["attributes"] if model.reads_attributes else None)


def embedding_of(model: DomainModel, batch: Mapping[str, Any]) -> Tensor | None:
    """Embeddings (N, E) by an encoder end to end that reads what the model is not called with.

    None of other models: they have no such encoder, or call it with the images themselves.
    """
    if not (model.end_to_end and model.reads_attributes):
        return None
    return model.embed(batch["image"], batch["attributes"])


def conditioned(
    model: DomainModel, domain: Tensor, estimate: Estimate, condition: Conditioned
) -> dict[str, Tensor]:
    """What the norms get to know of a batch, as keywords of `Task.predict`.

    Args:
        model: Has the encoder that made the estimate.
        domain: True labels, (N,).
        estimate: Of the same images.
        condition: ``id``: the labels; ``estimate``: the most probable domains; ``mixture``: soft
            weights; ``id_or_estimate``: the labels of domains that the encoder has seen images of,
            the most probable of the others elsewhere; ``embedding``: the labels, beside the
            embedding that a model with its encoder end to end computes.
    """
    if condition in ("id", "embedding") or model.encoder is None:
        return {"domain": domain}
    told = torch.full_like(domain, UNSEEN)
    if condition == "id_or_estimate":
        told = torch.where(model.encoder.gaussians.known[domain], domain, told)
    if model.far is None:
        if condition == "mixture":
            return {"weights": estimate.weights}
        return {"domain": torch.where(told == UNSEEN, estimate.domain, told)}
    weights = told_weights(told, estimate, soft=condition == "mixture")
    far = (told == UNSEEN) & ~estimate.is_known
    return {"weights": weights.masked_fill(far[:, None], 0)}
