"""Whether the classes of a stream come in runs, or one image tells nothing of the next."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class Runs:
    """How many more neighbours in a stream are predicted as the same class than if it was shuffled.

    Of n labels, n_k of class k, in random order a pair of neighbours is equal with probability
    ``e = sum_k n_k (n_k - 1) / (n (n - 1))``. The statistic is the number of equal pairs minus
    ``e`` times that of all pairs, divided by its standard deviation under this hypothesis. Shuffled
    streams have about a standard normal value, those of one class after the other a high one.

    Attributes:
        counts: Labels of each class (K,); None at first.
        pairs: Neighbours that were compared.
        equal: Those of one class.

    Reference:
        Barton and David, Multiple runs, Biometrika 44, 1957 (several classes); Wald and Wolfowitz,
        1940 (two). All pairs are counted, or those within batches where some batches are left out;
        the variance is then that of all pairs times the share that was counted.
    """

    def __init__(self) -> None:
        self.counts: Tensor | None = None
        self.pairs = self.equal = 0
        self._last: int | None = None

    def update(self, labels: Tensor, classes: int, *, follows: bool = True) -> None:
        """Take in the labels (N,) of neighbours, below ``classes``.

        Args:
            labels: As they came.
            classes: Their number K.
            follows: Whether the first of them came just after the last one taken in before.
        """
        if len(labels) == 0:
            return
        counts = torch.bincount(labels, minlength=classes).double().cpu()
        self.counts = counts if self.counts is None else self.counts + counts
        self.equal += int((labels[1:] == labels[:-1]).sum())
        self.pairs += len(labels) - 1
        if follows and self._last is not None:
            self.equal += int(labels[0]) == self._last
            self.pairs += 1
        self._last = int(labels[-1])

    @property
    def value(self) -> float:
        """The statistic; 0 for too few labels, or for those of one class."""
        if self.counts is None or self.pairs == 0 or (n := float(self.counts.sum())) < 3:
            return 0.0
        second, third = (float((self.counts**power).sum()) for power in (2, 3))
        expected = (second - n) / (n * (n - 1)) * self.pairs
        variance = (second * (second + n * (n + 1)) - 2 * n * third - n**3) / (n * n * (n - 1))
        variance *= self.pairs / (n - 1)
        return (self.equal - expected) / math.sqrt(variance) if variance > 1e-9 else 0.0

    @property
    def stored(self) -> tuple[Any, ...]:
        """What was taken in, to go on from."""
        return self.counts, self.pairs, self.equal, self._last

    @stored.setter
    def stored(self, value: tuple[Any, ...]) -> None:
        self.counts, self.pairs, self.equal, self._last = value
