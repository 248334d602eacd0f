"""The source's classifier, under which target images are moved to sure and diverse classes."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.losses import infomax_loss
from domainnorm.methods.bank import Bank, describe
from domainnorm.methods.base import Batch
from domainnorm.methods.heads import heads_of
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import joined
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class SHOT(SupervisedMethod):
    """Adapt the features of the source model without source images; the classifier stays fixed.

    ``L = mean_n H(p_n) - H(mean_n p_n) + label_weight · CE(p_n, ŷ_n)``. Before each epoch every
    training image of the target gets the label ŷ of the nearest class centroid, by the cosine of
    its features: centroids are means of features weighted by probabilities, then, once more, means
    over the images of each label.

    Args:
        model: The source model.
        task: Classification.
        roles: Source and target domains.
        lr: Peak learning rate.
        label_weight: Weight of the cross-entropy to the pseudo-labels, at least 0.
        **options: See `SupervisedMethod`.

    Reference:
        Liang et al., Do We Really Need to Access the Source Data?, ICML 2020, arXiv:2002.08546,
        eq. 3 to 7.
        Differs: the optimizer and schedule of the recipe, one rate for all layers; the source model
        is trained as the recipe says.
    """

    unlabelled: str = "target"
    labelled: str = ""
    starts_from: str = "source_only"
    tasks: tuple[str, ...] = ("classification",)

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        lr: float = 3e-4,
        label_weight: float = 0.3,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, lr=lr, **options)
        for head in heads_of(model):
            head.requires_grad_(False)
        self.label_weight = label_weight
        self.label = Bank(fill=-1, dtype=torch.long)

    def on_train_epoch_start(self) -> None:
        """Labels of all target images, by the model as it is."""
        index, features, logits = describe(self)
        self.label.write(index, nearest_centroid(features, logits.softmax(1)))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Sure and diverse predictions, and those of the centroids."""
        logits = self.outputs(batch).float()
        return {
            "infomax": infomax_loss(joined(logits)),
            "label": self.label_weight * F.cross_entropy(logits, self.label.read(batch["index"])),
        }


def nearest_centroid(features: Tensor, probability: Tensor) -> Tensor:
    """Labels (N,) by the cosine between features and centroids of the classes predicted at all.

    Args:
        features: (N, F).
        probability: (N, K).
    """
    extended = F.normalize(F.pad(features.float(), (0, 1), value=1.0), dim=1)
    num_classes, label = probability.shape[1], probability.argmax(1)
    present = torch.bincount(label, minlength=num_classes) > 0
    weight = probability.float()
    for _ in range(2):
        centroid = weight.T @ extended / (weight.sum(0)[:, None] + 1e-8)
        near = extended @ F.normalize(centroid, dim=1).T
        label = near.masked_fill(~present, -torch.inf).argmax(1)
        weight = F.one_hot(label, num_classes).to(extended)
    return label
