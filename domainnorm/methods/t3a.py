"""A stream whose sure features become the classifier."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.errors import ConversionError
from domainnorm.losses import entropies
from domainnorm.methods.base import Batch
from domainnorm.methods.heads import head_of
from domainnorm.methods.roles import Roles
from domainnorm.methods.without_gradients import WithoutGradients
from domainnorm.norms.kernels.partition import by_row
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class T3A(WithoutGradients):
    """Predict a stream by class prototypes, which start from the classifier's weights.

    The support of class k is the row of the classifier for it, and of all features z so far that
    the source model calls k the ``supports`` of least entropy, the row counting as one of them.
    ``logits[k] = z · normalized(Σ over the support of k of s / ||s||)``, the features of the batch
    included. The bias of the classifier has no part in it.

    Args:
        model: The source model.
        task: Classification.
        roles: Source and target domains.
        supports: Most supports of a class, at least 1; null for all.
        **options: See `OnlineMethod`.

    Raises:
        ConversionError: A classifier that is no one linear layer.

    Reference:
        Iwasawa and Matsuo, Test-Time Classifier Adjustment Module for Model-Agnostic Domain
        Generalization, NeurIPS 2021, alg. 1.
        Differs: None keeps all, where the authors' program drops the least sure of each class at
        every call; their number is chosen on source images there, among 1, 5, 20, 50, 100 and all.
        As in the program, a row of the classifier that the classifier itself takes for another
        class supports that one; here a class without any support keeps its own row.
    """

    tasks: tuple[str, ...] = ("classification",)
    remembered: tuple[str, ...] = ("kept",)

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        supports: int | None = 20,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        if task.labels == "classification" and getattr(head_of(model), "weight", None) is None:
            raise ConversionError("t3a: the classifier of this network is not one linear layer")
        self.most = supports
        self.kept: dict[int, list[Tensor]] = {}  # supports, their entropies and classes, by row

    def start_stream(self, domains: tuple[str, ...]) -> None:
        """No supports but the classifier's rows."""
        super().start_stream(domains)
        self.kept = {}

    def _classifier(self) -> tuple[Tensor, Tensor | None]:
        head = head_of(self.model)
        weight: Any = head.weight
        bias = getattr(head, "bias", None)
        return weight.detach().flatten(1), None if bias is None else bias.detach()

    @torch.no_grad()
    def adapt(self, batch: Batch) -> Tensor:
        """Products of features and prototypes, those of the batch included."""
        return self.predicted(*self.features(batch), batch["domain"])

    def predicted(self, features: Tensor, logits: Tensor, domain: Tensor) -> Tensor:
        """Logits (N, K) by prototypes in which features (N, F) that got these logits count.

        Images (N,) of each row have prototypes of their own.
        """
        found = torch.empty_like(logits)
        for row, own in by_row(domain).items():
            found[own] = self._among(row, features[own], logits[own]).to(found)
        return found

    def _among(self, row: int, features: Tensor, logits: Tensor) -> Tensor:
        weight, bias = self._classifier()
        of_classifier = F.linear(weight, weight, bias)
        first = [weight, entropies(of_classifier), of_classifier.argmax(1)]
        new = features, entropies(logits), logits.argmax(1)
        pairs = zip(self.kept.get(row, first), new, strict=True)
        supports, entropy, label = (torch.cat([one, other.to(one)]) for one, other in pairs)
        kept = self._surest(entropy, label)
        supports, label = supports[kept], label[kept]
        self.kept[row] = [supports, entropy[kept], label]
        unit = F.normalize(supports, dim=1)
        prototypes = torch.zeros_like(weight).index_add_(0, label, unit.to(weight))
        missing = torch.bincount(label, minlength=len(weight)) == 0
        prototypes = torch.where(missing[:, None], weight, prototypes)
        return features @ F.normalize(prototypes, dim=1).to(features).T

    def _surest(self, entropy: Tensor, label: Tensor) -> Tensor:
        """Positions of the surest supports of each class."""
        place = torch.arange(len(label), device=label.device)
        if self.most is None:
            return place
        order = entropy.argsort(stable=True)
        order = order[label[order].argsort(stable=True)]  # by class, the surest first
        sizes = torch.bincount(label)
        within = place - (sizes.cumsum(0) - sizes)[label[order]]
        return order[within < self.most].sort().values
