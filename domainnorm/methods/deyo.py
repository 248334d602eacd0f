"""Entropy minimization on a stream, of samples that are known by their shape."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.losses import entropies
from domainnorm.methods.base import Batch
from domainnorm.methods.online_entropy import OnlineEntropy
from domainnorm.methods.reestimation import kept_moments
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import chosen
from domainnorm.registry import register
from domainnorm.tasks import Task

_WEIGHED = 0.4  # of the largest entropy: E0 of the weights, as in EATA


@register
class DeYO(OnlineEntropy):
    """Predict a stream, and minimize the entropy of images whose class depends on their shape.

    Images with ``H < margin · ln K`` are predicted again with their ``patches``² patches
    shuffled. Images are kept if this lowers the probability of the predicted class by more than
    ``drop``. The loss is the mean of ``(exp(0.4 ln K - H) + exp(d)) · H`` over these, d being the
    difference of probabilities; the factor takes no gradient.

    Args:
        model: The source model.
        task: Classification.
        roles: Source and target domains.
        lr: Learning rate of SGD with momentum 0.9.
        margin: Largest entropy of a kept image, as a share of ln K, in (0, 1].
        drop: Least fall of probability of a kept image, in [-1, 1].
        patches: Patches along each side, at least 1.
        depth: Share of the norm layers, from the input on, that adapt, in (0, 1].
        opinion: Minimize the entropy of opinions, see `opinion_entropies`; images are still chosen
            by the entropy of predictions.
        **options: See `OnlineMethod`.

    Reference:
        Lee et al., Entropy is not Enough for Test-Time Adaptation, ICLR 2024, arXiv:2403.07366, and
        the authors' program.
        Differs: ``depth`` as in `SAR`; images whose side ``patches`` does not divide lose what is
        left over in the shuffled copy, where the authors' program resizes them.
    """

    tasks: tuple[str, ...] = ("classification",)

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        lr: float = 2.5e-4,
        margin: float = 0.5,
        drop: float = 0.2,
        patches: int = 4,
        depth: float = 0.75,
        opinion: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, lr=lr, depth=depth, **options)
        self.opinion = opinion
        self.reliable = margin * self.most
        self.drop = drop
        self.patches = patches

    def adapt(self, batch: Batch) -> Tensor:
        """Logits of one batch, and a step on the images that are kept."""
        logits = self.outputs(batch)
        entropy = entropies(logits).detach()
        near = entropy < self.reliable
        if not bool(near.any()):
            return logits
        part = chosen(batch, near)
        part["image"] = shuffled(part["image"], self.patches)
        with torch.no_grad(), kept_moments(self.model):
            other = self.outputs(part).softmax(1)
        sure, label = logits[near].detach().softmax(1).max(1)
        lost = sure - other.gather(1, label[:, None])[:, 0]
        kept = lost > self.drop
        if bool(kept.any()):
            weight = (_WEIGHED * self.most - entropy[near]).exp() + lost.exp()
            self.descend((weight * self.minimized(logits[near]))[kept].mean())
        return logits


def shuffled(image: Tensor, patches: int) -> Tensor:
    """Images (N, C, H, W) with the patches of each in another order."""
    size = image.shape[-2] // patches, image.shape[-1] // patches
    image = image[..., : size[0] * patches, : size[1] * patches]
    columns = F.unfold(image, size, stride=size)  # (N, C · h · w, patches²)
    order = torch.rand(len(image), columns.shape[-1], device=image.device).argsort(1)
    columns = columns.gather(2, order[:, None].expand_as(columns))
    return F.fold(columns, image.shape[-2:], size, stride=size)
