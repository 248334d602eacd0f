"""One class per sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from domainnorm.evaluation.evaluated import Evaluated
from domainnorm.evaluation.metrics import MetricSums


@dataclass(frozen=True)
class Predictions(Evaluated):
    """Class probabilities of N samples with their labels, on the CPU.

    Args:
        probabilities: Class probabilities (N, K), float32, in [0, 1].
        target: Labels (N,), int64, in [0, K); −1 means no label, which every metric drops.
        index: Position of each sample in its dataset (N,), int64.

    Raises:
        EvaluationError: A wrong shape, dtype, device or value.
    """

    probabilities: Tensor
    target: Tensor
    index: Tensor
    kind: ClassVar[str] = "classification"

    def __post_init__(self) -> None:
        shape = tuple(self.probabilities.shape)
        if len(shape) != 2 or shape[1] < 1:
            self._refuse("probabilities", f"shape {shape}", "(N, K) with K >= 1")
        count, classes = shape
        matching = " to match probabilities"
        self._check("probabilities", (count, classes), torch.float32)
        self._check("target", (count,), torch.int64, matching)
        self._check("index", (count,), torch.int64, matching)
        if count == 0:
            return
        self._check_probabilities(self.probabilities, 1.0001, "softmax outputs")
        low, high = int(self.target.min()), int(self.target.max())
        if low < -1 or high >= classes:
            expected = f"-1 (no label) to {classes - 1}"
            self._refuse("target", f"labels from {low} to {high}", expected)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return int(self.probabilities.shape[1])

    @property
    def has_label(self) -> Tensor:
        """Whether each sample has a label, (N,) bool."""
        return self.target >= 0

    def weighted(self, *, bins: int = 15) -> MetricSums:
        """Weighted sums behind the metrics of classes, see `MetricSums.metrics`.

        Args:
            bins: Number of equal-width confidence bins of the calibration error.

        Raises:
            EvaluationError: No sample has a label, or ``bins`` is not positive.
        """
        return MetricSums.of(self, bins)
