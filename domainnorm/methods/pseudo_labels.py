"""Labels that a network gives images, and which of them are sure enough to be learned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from domainnorm.losses.precision import WideBuffers, in_float32
from domainnorm.methods.samples import over_ranks

_EPS = 1e-6  # of the share of a class that is never predicted


class PseudoLabels(WideBuffers):
    """The most probable class of each image or pixel, and whether its probability is high enough.

    With a **prior** probabilities are aligned first: ``p[k] ∝ p[k] · prior[k] / share[k]``, where
    ``share`` is the moving average of the mean probability of each class on target images, before
    they are aligned. Classes that are predicted more often than the prior says lose. ``uniform``:
    all classes are equally frequent in the target. ``estimated``: the prior is the moving average
    of the shares of the classes among source labels, so the target is taken to have the classes as
    often as batches of the source have them, which need not be equally often. ``start``: the mean
    probability that the network gave target images before training, see `anchor`; no class is taken
    to be frequent, and none can be forgotten. The averages are means of all batches at first,
    ``a = min(decay, 1 - 1/t)``.

    The **rule** ``fixed`` asks for ``threshold``; ``free`` for a threshold of each class that
    follows how sure the network is: ``level ← a · level + (1 - a) · mean(max_k p[k])``,
    ``usual[k] ← a · usual[k] + (1 - a) · mean(p[k])``, both starting at 1/K, and
    ``threshold[k] = level · usual[k] / max_j usual[j]``, with ``a = decay`` from the first batch.

    For `fairness_loss`, how often each class is predicted is averaged like ``usual``.

    All averages are over all ranks, and buffers, so that a resumed run goes on as it was.

    Args:
        num_classes: K.
        threshold: Of the rule ``fixed``, in [0, 1].
        rule: ``fixed`` or ``free``.
        prior: ``none``, ``uniform``, ``estimated`` or ``start``.
        decay: Weight of the past in moving averages, in [0, 1).
        fair: Whether `fairness_loss` will be asked for.

    Reference:
        Wang et al., FreeMatch, ICLR 2023, arXiv:2205.07246, eq. 5 to 7, and 9 to 11 for
        `fairness_loss`; Berthelot et al., ReMixMatch, ICLR 2020, arXiv:1911.09785, sec. 3.1
        (``estimated``).
        Differs: the share of predictions is a moving average, not that of the last 128 batches;
        ``start`` is ours; the sign of `fairness_loss`.
    """

    share: Tensor
    source_share: Tensor
    batches: Tensor
    level: Tensor
    usual: Tensor
    histogram: Tensor
    anchored: Tensor

    def __init__(
        self,
        num_classes: int,
        threshold: float,
        rule: Literal["fixed", "free"] = "fixed",
        prior: Literal["none", "uniform", "estimated", "start"] = "none",
        decay: float = 0.999,
        fair: bool = False,
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self.rule = rule
        self.prior = prior
        self.decay = decay
        self.fair = fair
        equal = torch.full((num_classes,), 1 / num_classes)
        if prior != "none":
            self.register_buffer("share", equal.clone())
            self.register_buffer("source_share", equal.clone())
            self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        if prior == "start":
            self.register_buffer("anchored", equal.clone())
        if rule == "free":
            self.register_buffer("level", torch.tensor(1 / num_classes))
        if rule == "free" or fair:
            self.register_buffer("usual", equal.clone())
        if fair:
            self.register_buffer("histogram", equal.clone())

    @torch.no_grad()
    def anchor(self, logits: Iterable[Tensor]) -> None:
        """Take the mean prediction, of batches (N, K, ...) of all target images, as the prior."""
        if self.prior == "start" and int(self.batches) == 0:
            sums = [(_mean(_probability(one)) * len(one), len(one)) for one in logits]
            total = torch.stack([share for share, _ in sums]).sum(0)
            self.anchored.copy_(total / sum(count for _, count in sums))

    @torch.no_grad()
    def forward(self, logits: Tensor, source_label: Tensor) -> tuple[Tensor, Tensor]:
        """Labels of one training batch; moves the averages.

        Args:
            logits: Of target images, (N, K) or (N, K, H, W).
            source_label: Labels of the batch's source images or pixels, −1 for none, any shape.

        Returns:
            Classes and whether they are sure, (N,) or (N, H, W) each.
        """
        probability = _probability(logits)
        if self.prior != "none":
            probability = self._aligned(probability, source_label)
        confidence, label = probability.max(1)
        if self.rule == "free" or self.fair:
            self.usual.lerp_(over_ranks(_mean(probability)), 1 - self.decay)
        if self.fair:
            count = torch.bincount(label.flatten(), minlength=len(self.histogram))
            share = count.to(self.histogram) / label.numel()
            self.histogram.lerp_(over_ranks(share), 1 - self.decay)
        if self.rule == "fixed":
            return label, confidence >= self.threshold
        self.level.lerp_(over_ranks(confidence.mean()), 1 - self.decay)
        thresholds = self.level * self.usual / self.usual.max()
        return label, confidence >= thresholds[label]

    @in_float32
    def fairness_loss(self, logits: Tensor, weight: Tensor) -> Tensor:
        """Predictions of the classes that are predicted less often than they are likely.

        ``-Σ_k a[k] log b[k]`` with ``a ∝ usual / histogram`` of all batches so far, constant, and
        ``b ∝ mean(p) / histogram`` of the samples of this batch, on all ranks, over the classes
        that are predicted for one of them; 0 where no sample counts. It is least where b is a.

        Args:
            logits: Of strong views, (N, K) or (N, K, H, W).
            weight: How much each sample counts, in [0, 1], (N,) or (N, H, W).

        Reference:
            Wang et al., FreeMatch, ICLR 2023, arXiv:2205.07246, eq. 9 to 11.
            Differs: the paper and its program minimize ``Σ_k a[k] log b[k]``, which drives b
            away from a and has no least value; its aim, diverse predictions, is this one's.
        """
        probability = logits.softmax(1).movedim(1, -1).flatten(0, -2)  # (samples, K)
        weight = weight.flatten().to(probability)
        label = probability.argmax(1)
        counted = torch.zeros_like(probability[0]).index_add(0, label, weight)
        mean, histogram = over_ranks(torch.stack([weight @ probability, counted]))
        seen = histogram > 0
        usual = torch.where(self.histogram > 0, self.usual / self.histogram, 0)
        batch = mean[seen] / histogram[seen].detach()
        gained: Tensor = (usual / usual.sum())[seen] * (batch / batch.sum()).log()
        return -gained.sum()

    def _aligned(self, probability: Tensor, source_label: Tensor) -> Tensor:
        """Probabilities (N, K, ...) after the alignment of their mean to the prior."""
        self.batches += 1
        weight = 1 - min(self.decay, 1 - 1 / int(self.batches))
        self.share.lerp_(over_ranks(_mean(probability)), weight)
        prior = torch.full_like(self.share, 1 / len(self.share))
        if self.prior == "estimated":
            known = source_label[source_label >= 0]
            count = torch.bincount(known, minlength=len(self.share)).to(self.share)
            count = over_ranks(count)
            if bool(count.any()):
                self.source_share.lerp_(count / count.sum(), weight)
            prior = self.source_share
        if self.prior == "start":
            prior = self.anchored
        ratio = prior / self.share.clamp(min=_EPS)
        aligned = probability * ratio.view(-1, *[1] * (probability.ndim - 2))
        return aligned / aligned.sum(1, keepdim=True)


@in_float32
def _probability(logits: Tensor) -> Tensor:
    """In float32 at least: averages of many steps have no narrow type."""
    return logits.softmax(1)


def _mean(probability: Tensor) -> Tensor:
    """(N, K, ...) -> (K,)."""
    return probability.movedim(1, -1).flatten(0, -2).mean(0)
