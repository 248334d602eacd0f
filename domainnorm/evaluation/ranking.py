"""Areas under curves over all thresholds, for many weightings of the samples at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
        """Rank the samples whose target is known.

        Args:
            score: (N,).
            target: 1, 0, or −1 for unknown, (N,).
        """
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
        and N the weights of all positives and negatives.

        Args:
            weights: Weight of each of the N samples in each weighting, (N, B), float64.

        Returns:
            Two (B,); nan where all weight is on positives or all on negatives.
        """
        both = weights[self.order].cumsum(dim=0)[self.last]  # (T, B)
        hits = (weights[self.order] * self.positive[:, None]).cumsum(dim=0)[self.last]
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
