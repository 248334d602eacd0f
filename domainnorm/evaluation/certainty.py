"""How much of the classes that a model predicts its images explain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from domainnorm.losses import entropies


class Certainty:
    """Share of the entropy of the predicted classes that images explain, in [0, 1].

    Theil's uncertainty coefficient ``1 - mean_n H(p_n) / H(mean_n p_n)`` of probabilities p: 0 for
    a model that says the same of every image, 1 for one that is always sure and of not one class
    alone. Label smoothing lowers it: 0.1 of ten equally frequent classes to at most 0.78.

    Args:
        memory: Images that count at most: of more, earlier ones lose weight; None for all.

    Attributes:
        total: Sum of p (K,), of images or the pixels of masks; None at first.
        entropy: Sum of H(p).
        samples: Their number.
        images: Images that count.

    Reference:
        Theil, On the estimation of relationships involving qualitative variables, American Journal
        of Sociology 76, 1970.
    """

    def __init__(self, memory: int | None = None) -> None:
        self.memory = memory
        self.total: Tensor | None = None
        self.entropy = 0.0
        self.samples = 0.0
        self.images = 0.0

    def update(self, logits: Tensor) -> None:
        """Take in logits (N, K, ...) of a batch; one that is not finite does not count."""
        found = logits.float().movedim(1, -1).flatten(0, -2)
        if not bool(found.isfinite().all()):
            return
        keep = 1.0
        if self.memory is not None and self.images + len(logits) > self.memory:
            keep = max(0.0, self.memory - len(logits)) / self.images if self.images else 0.0
        added = found.softmax(1).sum(0)
        self.total = added if self.total is None else keep * self.total + added
        self.entropy = keep * self.entropy + float(entropies(found).sum())
        self.samples = keep * self.samples + len(found)
        self.images = keep * self.images + len(logits)

    @property
    def possible(self) -> float:
        """Entropy of the mean prediction; 0 for nothing."""
        if self.total is None:
            return 0.0
        mean = self.total / self.samples
        return -float(torch.special.xlogy(mean, mean).sum())

    @property
    def value(self) -> float:
        """The coefficient of what was taken in; 0 for nothing."""
        possible = self.possible
        return 1 - self.entropy / self.samples / possible if possible > 0 else 0.0

    @property
    def stored(self) -> tuple[Any, ...]:
        """What was taken in, to go on from."""
        return self.total, self.entropy, self.samples, self.images

    @stored.setter
    def stored(self, value: tuple[Any, ...]) -> None:
        self.total, self.entropy, self.samples, self.images = value


def certainty_of(logits: Iterable[Tensor]) -> float:
    """`Certainty` of the logits (N, K, ...) of some batches."""
    found = Certainty()
    for one in logits:
        found.update(one)
    return found.value
