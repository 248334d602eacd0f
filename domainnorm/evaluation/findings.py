"""Findings, several per sample and each present, absent or unknown: predictions and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from domainnorm.evaluation.evaluated import (
    ClassScores,
    Evaluated,
    WeightedMetrics,
    class_labels,
    mean_ratio,
)

_THRESHOLD = 0.5


@dataclass(frozen=True)
class MultiLabelPredictions(Evaluated):
    """Probabilities of K findings in N samples with the truth, on the CPU.

    Args:
        probabilities: Probability of each finding (N, K), float32, in [0, 1]; rows need not sum
            to 1.
        target: 1 present, 0 absent, −1 unknown (N, K), int64; every metric drops what is unknown.
        index: Position of each sample in its dataset (N,), int64.

    Raises:
        EvaluationError: A wrong shape, dtype, device or value.
    """

    probabilities: Tensor
    target: Tensor
    index: Tensor
    kind: ClassVar[str] = "multilabel"

    def __post_init__(self) -> None:
        shape = tuple(self.probabilities.shape)
        if len(shape) != 2 or shape[1] < 1:
            self._refuse("probabilities", f"shape {shape}", "(N, K) with K >= 1")
        matching = " to match probabilities"
        self._check("probabilities", shape, torch.float32)
        self._check("target", shape, torch.int64, matching)
        self._check("index", shape[:1], torch.int64, matching)
        self._check_probabilities(self.probabilities, 1.0, "sigmoid outputs")
        if not bool(((self.target >= -1) & (self.target <= 1)).all()):
            low, high = int(self.target.min()), int(self.target.max())
            self._refuse("target", f"labels from {low} to {high}", "-1 (unknown), 0 or 1")

    @property
    def num_classes(self) -> int:
        """Number of findings K."""
        return int(self.probabilities.shape[1])

    @property
    def has_label(self) -> Tensor:
        """Whether anything is known of each sample, (N,) bool."""
        return (self.target >= 0).any(dim=1)

    def weighted(self, *, class_names: Sequence[str] | None = None) -> FindingSums:
        """Rankings and weighted sums behind AUROC, average precision, macro-F1 and accuracy.

        Args:
            class_names: Names of the K findings, for the metrics of single findings; None for
                their numbers.

        Raises:
            EvaluationError: Nothing is known of any sample, or the number of names is not K.
        """
        return FindingSums.of(self, class_labels(class_names, self.num_classes))

    def by_class(self) -> ClassScores:
        """AUROC of each finding, and the samples it is present in; nan as in `FindingSums.metrics`.

        Raises:
            EvaluationError: Nothing is known of any sample.
        """
        found = self.metrics()
        values = [found[f"auroc/{k}"] for k in range(self.num_classes)]
        present = (self.target == 1).sum(dim=0)
        return ClassScores("auroc", torch.tensor(values, dtype=torch.float64), present)


@dataclass(frozen=True)
class FindingSums(WeightedMetrics):
    """What the metrics of findings need, for weights to be applied.

    Args:
        sums: See `WeightedMetrics`. Rows: K of true positives, K of present findings, K of
            predicted findings, one of right answers, one of known ones.
        rankings: For each of K findings its samples by falling probability.
        class_names: Names of the K findings.
    """

    rankings: list[Ranking]
    class_names: list[str]

    @staticmethod
    def of(predictions: MultiLabelPredictions, class_names: list[str]) -> FindingSums:
        """Rankings and sums of the samples of which anything is known."""
        labelled = predictions.require_labels()
        known, present = labelled.target >= 0, labelled.target == 1
        guess = (labelled.probabilities > _THRESHOLD) & known
        right = (guess == present) & known
        counts = torch.cat([guess & present, present, guess], dim=1).double()
        tail = [right.sum(dim=1, keepdim=True), known.sum(dim=1, keepdim=True)]
        sums = torch.cat([counts, *tail], dim=1).T
        columns = zip(labelled.probabilities.T, labelled.target.T, strict=True)
        return FindingSums(sums, [Ranking.of(*column) for column in columns], class_names)

    def metrics(self, weights: Tensor) -> dict[str, Tensor]:
        """Weighted metrics for several weightings at once, see `WeightedMetrics`.

        Returns:
            Values (B,) of ``auroc`` and ``average_precision``, means over the findings that are
            present in some samples and absent in others, nan where there is none; ``macro_f1``,
            mean over the findings in truth or prediction, and ``accuracy``, over all known
            findings of all samples, both at probability 0.5; and ``auroc/<finding>`` of each, nan
            where it is present or absent in all samples. All in [0, 1].
        """
        areas = [ranking.areas(weights) for ranking in self.rankings]
        auroc, precision = (torch.stack(area) for area in zip(*areas, strict=True))  # (K, B)
        counts, right, known = (self.sums @ weights).tensor_split([-2, -1])
        hits, present, predicted = counts.chunk(3)
        return {
            "auroc": auroc.nanmean(dim=0),
            "average_precision": precision.nanmean(dim=0),
            "macro_f1": mean_ratio(2 * hits, present + predicted),
            "accuracy": (right / known).squeeze(0),
            **{f"auroc/{name}": auroc[k] for k, name in enumerate(self.class_names)},
        }


@dataclass(frozen=True)
class Ranking:
    """Samples by falling score: sorted once, then weighed as often as one likes.

    Args:
        order: Positions of the M samples with a known answer, by falling score.
        positive: Whether each of them is positive, (M,) float64, in that order.
        last: Position in ``order`` of the last sample of each distinct score, (T,).
    """

    order: Tensor
    positive: Tensor
    last: Tensor

    @staticmethod
    def of(score: Tensor, target: Tensor) -> Ranking:
        """Rank N samples, those whose target is known: 1 or 0, and not −1."""
        known = (target >= 0).nonzero().squeeze(1)
        falling, place = score[known].sort(descending=True, stable=True)
        order = known[place]
        # Samples of equal score pass the threshold together.
        is_last = torch.ones_like(falling, dtype=torch.bool)
        is_last[:-1] = falling[1:] != falling[:-1]
        return Ranking(order, (target[order] == 1).double(), is_last.nonzero().squeeze(1))

    def areas(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Area under the ROC curve, and average precision.

        ``AUROC = Σ_t (FP_t − FP_{t−1}) (TP_t + TP_{t−1}) / (2 P N)`` and
        ``AP = Σ_t (TP_t − TP_{t−1}) / P · TP_t / (TP_t + FP_t)`` over the distinct scores t, with P
        and N the weights of all positives and negatives. ``weights`` (N, B) give (B,) twice, nan
        where all weight is on positives or all on negatives.
        """
        ranked = weights[self.order]  # (M, B)
        both = ranked.cumsum(dim=0)[self.last]  # (T, B)
        hits = ranked.mul_(self.positive[:, None]).cumsum(dim=0)[self.last]
        misses = both - hits
        zero = torch.zeros_like(weights[:1])
        gained = hits.diff(dim=0, prepend=zero)
        lost = misses.diff(dim=0, prepend=zero)
        positives, negatives = gained.sum(dim=0), lost.sum(dim=0)
        auroc = (lost * (hits - gained / 2)).sum(dim=0) / (positives * negatives)
        # Before the first sample with a weight there is nothing, and no precision to add.
        precision = (gained * hits / both.clamp(min=torch.finfo(both.dtype).tiny)).sum(dim=0)
        usable = (positives > 0) & (negatives > 0)
        return (
            torch.where(usable, auroc, torch.nan),
            torch.where(usable, precision / positives, torch.nan),
        )
