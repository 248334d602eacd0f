"""A stream followed by a teacher, and weights that now and then come back from the source."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.methods.base import Batch
from domainnorm.methods.online_method import OnlineMethod
from domainnorm.methods.reestimation import kept_moments, use_batch_statistics
from domainnorm.methods.roles import Roles
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class CoTTA(OnlineMethod):
    """Predict a stream with a teacher, the moving average of a model that learns from it.

    The teacher's logits are the prediction of a batch. They are averaged over random views of the
    images if the mean confidence of the source model is below ``threshold``. The model makes a step
    on the cross-entropy to them, and the teacher follows (``decay``). Each weight of the model
    returns to the source's value with probability ``restore``. All parameters adapt; norms use the
    statistics of the batch. The teacher makes a prediction cost four passes or more.

    Args:
        model: The source model.
        task: Classification.
        roles: Source and target domains.
        lr: Learning rate of Adam.
        decay: Decay of the teacher's moving average, in [0, 1).
        restore: Probability that a weight returns to the source model's value, in [0, 1).
        threshold: Mean confidence of the source model below which views are averaged, in [0, 1].
        augmentations: Number of views, at least 1.
        **options: See `OnlineMethod`.

    Reference:
        Wang et al., Continual Test-Time Domain Adaptation, CVPR 2022, arXiv:2203.13591, eq. 1 to 8.
        Differs: confidence is that of the batch, as in the authors' code; views are turned,
        shifted, resized and changed in brightness and noise, without blur and mirror images.
    """

    tasks: tuple[str, ...] = ("classification",)

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        lr: float = 1e-3,
        decay: float = 0.999,
        restore: float = 0.01,
        threshold: float = 0.92,
        augmentations: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.augmentations: int = augmentations
        self.lr = lr
        self.restored = restore
        self.threshold = threshold
        self.follow(decay)
        self.source: tuple[DomainModel, ...] = ()  # no child: it is neither trained nor stored

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over all parameters, as in the paper."""
        return torch.optim.Adam(self.model.parameters(), lr=self.lr)

    def start_stream(self, domains: tuple[str, ...]) -> None:
        """The model is the source's then, but for rows that earlier streams have moved."""
        self.source = (copy.deepcopy(self.model).requires_grad_(False),)
        for model in (self.model, self.deployed, *self.source):
            use_batch_statistics(model)

    @property
    def copies(self) -> list[DomainModel]:
        """The source model among them, whose numbers come back."""
        return [*super().copies, *self.source]

    def adapt(self, batch: Batch) -> Tensor:
        """The teacher's logits of one batch, and a step of the model towards them."""
        teacher, (source,) = self.deployed, self.source
        logits = self.outputs(batch)
        with torch.no_grad():
            told = self.outputs(batch, model=teacher)
            if self._is_unsure(batch, source):
                with kept_moments(teacher):
                    views = [
                        {**batch, "image": varied(batch["image"])}
                        for _ in range(self.augmentations)
                    ]
                    told = torch.stack([self.outputs(v, model=teacher) for v in views]).mean(0)
        self.descend(-(told.softmax(1) * logits.log_softmax(1)).sum(1).mean())
        assert self.teacher is not None
        self.teacher.update(self.model)
        with torch.no_grad():
            pairs = zip(self.model.parameters(), source.parameters(), strict=True)
            for parameter, former in pairs:
                back = torch.rand_like(parameter) < self.restored
                parameter.copy_(torch.where(back, former, parameter))
        return told

    def _is_unsure(self, batch: Batch, source: DomainModel) -> bool:
        if not self.threshold:  # then nothing is
            return False
        confidence = self.outputs(batch, model=source).softmax(1).amax(1).mean()
        return float(confidence) < self.threshold


def varied(image: Tensor) -> Tensor:
    """Each image turned (±8°), shifted (±1/16), resized (±5 %), in other light, with noise.

    Args:
        image: (N, C, H, W), standardized.
    """
    count = len(image)
    draw = torch.rand(5, count, dtype=image.dtype, device=image.device) * 2 - 1
    angle, size = draw[0] * math.radians(8), 1 + 0.05 * draw[1]
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(count, 2, 2)
    shift = draw[2:4].T[:, :, None] / 8  # of a side of 2
    move = torch.cat([turn / size[:, None, None], shift], 2)
    with torch.autocast(image.device.type, enabled=False):  # half a pixel would be rounded away
        grid = F.affine_grid(move, list(image.shape), align_corners=False)
    moved = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    brightness = (1 + 0.2 * draw[4])[:, None, None, None]
    return moved * brightness + 0.02 * torch.randn_like(image)
