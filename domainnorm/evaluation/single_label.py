"""Predictions of one class per sample, and their metrics.

Every metric here is a function of a few weighted sums over samples. Point values weigh each
sample by one, bootstrap resamples by how often they drew it; both go through the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from domainnorm.evaluation.evaluated import (
    ClassScores,
    Evaluated,
    EvaluationError,
    WeightedMetrics,
    mean_ratio,
    ratio,
)

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "ece", "nll")
LOWER_IS_BETTER = frozenset({"ece", "nll", "l1"})


@dataclass(frozen=True)
class MetricSums(WeightedMetrics):
    """The sums over samples that metrics need.

    Args:
        sums: See `WeightedMetrics`; sparse. Rows: K of hits, K of labels, K of predictions, one
            per bin of correct − confidence, one of −ln p.
        num_classes: Number of classes K.
    """

    num_classes: int

    @staticmethod
    def of(predictions: Predictions, bins: int) -> MetricSums:
        """Sums of the labelled samples of ``predictions``.

        Raises:
            EvaluationError: No sample has a label, or ``bins`` is not positive.
        """
        labelled = predictions.require_labels()
        classes = labelled.num_classes
        confidence, predicted, correct = _top_class(labelled)
        hit = correct.nonzero().squeeze(1)
        # float32 probabilities underflow to zero; its smallest normal number caps −ln p at 87.3.
        likelihood = labelled.probabilities.gather(1, labelled.target[:, None]).squeeze(1)
        surprise = -likelihood.clamp(min=torch.finfo(torch.float32).tiny).double().log()
        sample = torch.arange(len(labelled))
        one = torch.ones(len(labelled), dtype=torch.float64)
        last = 3 * classes + bins
        parts = [
            (labelled.target[hit], hit, one[hit]),
            (classes + labelled.target, sample, one),
            (2 * classes + predicted, sample, one),
            (3 * classes + _bin_of(confidence, bins), sample, correct.double() - confidence),
            (torch.full_like(sample, last), sample, surprise),
        ]
        rows, columns, values = (torch.cat(column) for column in zip(*parts, strict=True))
        # Indices are right by construction; left unsaid, torch warns about unchecked invariants.
        sums = torch.sparse_coo_tensor(
            torch.stack([rows, columns]), values, (last + 1, len(labelled)), check_invariants=False
        ).coalesce()
        return MetricSums(sums, classes)

    def metrics(self, weights: Tensor) -> dict[str, Tensor]:
        """Weighted metrics for several weightings at once, see `WeightedMetrics`.

        Returns:
            Values (B,) of ``accuracy``, ``balanced_accuracy`` (mean recall of the classes that
            have samples), ``macro_f1`` (mean F1 of the classes in targets or predictions), ``ece``
            (all in [0, 1]) and ``nll`` (mean −ln p of the true class, nats).

        Reference:
            Calibration error: Guo et al., On Calibration of Modern Neural Networks, ICML 2017,
            arXiv:1706.04599, eq. 3 (15 bins, open below and closed above).
        """
        total = weights.sum(dim=0)  # (B,)
        sums = torch.sparse.mm(self.sums, weights)  # (3K + bins + 1, B)
        hits, labels, predicted, gaps = sums[:-1].tensor_split(
            [self.num_classes, 2 * self.num_classes, 3 * self.num_classes]
        )
        return {
            "accuracy": hits.sum(dim=0) / total,
            "balanced_accuracy": mean_ratio(hits, labels),
            "macro_f1": mean_ratio(2 * hits, labels + predicted),
            "ece": gaps.abs().sum(dim=0) / total,
            "nll": sums[-1] / total,
        }


def _top_class(labelled: Predictions) -> tuple[Tensor, Tensor, Tensor]:
    """Confidence (N,) float64, predicted class (N,) and whether it is right (N,) bool."""
    confidence, predicted = labelled.probabilities.max(dim=1)
    return confidence.double(), predicted, predicted == labelled.target


def _bin_of(confidence: Tensor, bins: int) -> Tensor:
    """Number of the bin (lo, hi] of each confidence.

    torchmetrics closes its bins below instead, which puts a confidence of exactly 1 in a bin alone.
    """
    if bins < 1:
        raise EvaluationError(f"metrics: bins={bins}, expected a positive number of bins")
    return torch.bucketize(confidence, torch.arange(1, bins, dtype=torch.float64) / bins)


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

    def by_class(self) -> ClassScores:
        """Recall of each class; nan where no sample is of it.

        Raises:
            EvaluationError: No sample has a label.
        """
        labelled = self.require_labels()
        correct = _top_class(labelled)[2]
        images = torch.bincount(labelled.target, minlength=self.num_classes)
        hits = torch.bincount(labelled.target[correct], minlength=self.num_classes)
        return ClassScores("recall", ratio(hits.double(), images.double()), images)
