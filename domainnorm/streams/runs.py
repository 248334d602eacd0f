"""Whether the classes of a stream come in runs, or one image tells nothing of the next."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_LABELS, _PAIRS = 256, 128  # labels that a pair is compared with, and pairs that count


class Runs:
    """How many more neighbours in a stream are predicted as the same class than if it was shuffled.

    Of n labels, n_k of class k, in random order a pair of neighbours is equal with probability
    ``e = sum_k n_k (n_k - 1) / (n (n - 1))``. For the pairs of each batch, e is that of the last
    256 labels up to and with the batch, since predictions change while a model adapts. The
    statistic is ``sum (equal - e) / sqrt(max(1, sum e (1 - e)))`` over pairs. Of more than 128,
    earlier ones lose weight: a stream may become shuffled, or ordered. Shuffled streams have about
    a standard normal value (0.7 of it after many pairs; less of very many classes, where a few
    equal pairs say nothing), those of one class after the other a high one.

    Attributes:
        pairs: Neighbours that count.
        excess: Those of one class, less the sum of e.
        variance: Sum of e (1 - e).

    Reference:
        Runs tests: Wald and Wolfowitz, 1940; Barton and David, Multiple runs, Biometrika 44, 1957.
        Differs: they take all labels as exchangeable and weigh them alike, and have the exact
        variance.
    """

    def __init__(self) -> None:
        self.pairs, self.excess, self.variance = 0.0, 0.0, 0.0
        self._recent = torch.empty(0, dtype=torch.long)

    def update(self, labels: Tensor) -> None:
        """Take in labels (N,) from 0, in the order of the stream; some may be left out."""
        recent = self._recent.to(labels)
        neighbours = torch.cat([recent[-1:], labels])
        self._recent = torch.cat([recent, labels])[-max(_LABELS, len(labels)) :]
        number, pairs = len(self._recent), len(neighbours) - 1
        if number < 2 or pairs < 1:
            return
        counts = torch.bincount(self._recent).double()
        expected = float((counts * (counts - 1)).sum()) / (number * (number - 1))
        keep = min(1.0, max(0.0, _PAIRS - pairs) / self.pairs) if self.pairs else 1.0
        equal = int((neighbours[1:] == neighbours[:-1]).sum())
        self.pairs = keep * self.pairs + pairs
        self.excess = keep * self.excess + equal - pairs * expected
        self.variance = keep * self.variance + pairs * expected * (1 - expected)

    @property
    def value(self) -> float:
        """The statistic; 0 for too few labels, or for those of one class."""
        return self.excess / math.sqrt(max(1.0, self.variance))

    @property
    def stored(self) -> tuple[Any, ...]:
        """What was taken in, to go on from."""
        return self.pairs, self.excess, self.variance, self._recent

    @stored.setter
    def stored(self, value: tuple[Any, ...]) -> None:
        self.pairs, self.excess, self.variance, self._recent = value
