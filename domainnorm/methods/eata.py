"""Entropy minimization on a stream, of samples that are reliable and not redundant."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.errors import DomainNormError
from domainnorm.losses import entropies
from domainnorm.methods.online_entropy import OnlineEntropy
from domainnorm.methods.reestimation import kept_moments
from domainnorm.methods.roles import Roles
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class EATA(OnlineEntropy):
    """Predict a stream, and minimize the entropy of reliable, non-redundant samples.

    With H the entropy of a sample (or pixel), p its probabilities, p̄ their moving average and
    ``E = margin · ln K``, samples with ``H < E`` and ``|cos(p̄, p)| < redundancy`` are kept, and
    ``mean over kept of exp(E - H) · H + fisher_weight · Σ_i F_i (θ_i - θ_i⁰)²`` is minimized over
    scales and shifts θ, the factor ``exp(E - H)`` constant. Norms use the statistics of the batch;
    its predictions are those made before the step. F, how strongly the source's predictions depend
    on a parameter, is estimated on source training images under the rows of the target.

    Args:
        model: The source model.
        task: Metrics.
        roles: Source and target domains.
        lr: Learning rate of SGD with momentum 0.9.
        margin: Entropy from which a sample is unreliable, as a share of ln K, in (0, 1].
        redundancy: Cosine from which a sample is redundant, at least 0; null for ``1.3 / √K``.
        fisher_weight: Weight of the pull towards the source model, at least 0; 0 is ETA.
        fisher_images: Source training images for the estimate of F, at least 1.
        opinion: Minimize the entropy of opinions, see `opinion_entropies`; reliability is still
            judged by the entropy of predictions.
        **options: See `OnlineEntropy`.

    Reference:
        Niu et al., Efficient Test-Time Model Adaptation without Forgetting, ICML 2022,
        arXiv:2204.02610, eq. 2 to 8.
        Differs: ``redundancy`` depends on K: a sure prediction has a cosine of ``1 / √K`` or more
        with a balanced mean, so the paper's 0.05 keeps none of up to eleven classes.
    """

    labelled: str = "source"
    remembered: tuple[str, ...] = ("mean_probability",)

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        lr: float = 2.5e-4,
        margin: float = 0.4,
        redundancy: float | None = None,
        fisher_weight: float = 2000.0,
        fisher_images: int = 2000,
        opinion: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, lr=lr, **options)
        self.opinion = opinion
        self.reliable = margin * self.most
        num_classes = len(task.class_names)
        self.redundancy = 1.3 / math.sqrt(num_classes) if redundancy is None else redundancy
        self.fisher_weight, self.fisher_images = fisher_weight, fisher_images
        self.fisher: list[Tensor] = []
        self._known: dict[str, list[Tensor]] = {}
        self.mean_probability: Tensor | None = None

    def start_stream(self, domains: tuple[str, ...]) -> None:
        """Norms use statistics of batches, dropout is off; F and θ⁰ for the rows of the targets."""
        if self.fisher_weight and self._trainer is None:
            raise DomainNormError(
                "fisher_weight: needs source images, which only a run has; set it to 0 (ETA)"
            )
        super().start_stream(domains)
        self.mean_probability = None
        self.fisher = []
        for name in self.roles.lent(domains) if self.fisher_weight else ():
            if name not in self._known:
                self._known[name] = self._fisher(name)
            # Of own rows that of their domain, of what domains share the largest.
            found = zip(self.fisher or self._known[name], self._known[name], strict=True)
            self.fisher = [torch.maximum(one, other) for one, other in found]

    def loss_of(self, logits: Tensor) -> Tensor | None:
        """That of the samples that are kept."""
        probability, entropy = logits.softmax(1).detach(), entropies(logits).detach()
        kept = entropy < self.reliable
        if self.mean_probability is not None:
            cosine = F.cosine_similarity(self.mean_probability[None], probability, dim=1)
            kept &= cosine.abs() < self.redundancy
        if not bool(kept.any()):
            return None
        mean, former = probability[kept].mean(0), self.mean_probability
        self.mean_probability = mean if former is None else 0.9 * former + 0.1 * mean
        weight = (self.reliable - entropy[kept]).exp()
        return (weight * self.minimized(logits[kept])).mean() + self._pull()

    def _pull(self) -> Tensor | float:
        """``fisher_weight · Σ_i F_i (θ_i - θ_i⁰)²``."""
        moved = zip(self.fisher, self.adapted, self.start, strict=True) if self.fisher else ()
        return self.fisher_weight * sum((f * (p - at).square()).sum() for f, p, at in moved)

    def _fisher(self, domain: str) -> list[Tensor]:
        """Mean over batches of the squared gradient of CE to the source's own predictions."""
        sums, seen, batches = [torch.zeros_like(one) for one in self.start], 0, 0
        row = self.model.domain_names.index(domain)
        with kept_moments(self.model):
            for batch in self.sweep("source", mixed=True):
                if seen >= self.fisher_images:
                    break
                logits = self.outputs(batch, domain=torch.full_like(batch["domain"], row))
                loss = F.cross_entropy(logits, logits.argmax(1))
                gradients = torch.autograd.grad(loss, self.adapted)
                sums = [total + g.square() for total, g in zip(sums, gradients, strict=True)]
                seen, batches = seen + len(logits), batches + 1
        return [total / max(1, batches) for total in sums]
