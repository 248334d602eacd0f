"""A teacher's labels of whole images, learned on images of which patches are hidden."""

from __future__ import annotations

from typing import Any

from domainnorm.backbones import DomainModel
from domainnorm.methods.dacs import DACS
from domainnorm.methods.roles import Roles
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class MIC(DACS):
    """DACS with a slower teacher, whose labels are also learned on masked target images.

    A share ``mask_ratio`` of the patches of the strong view is set to 0 after normalization. All
    pixels count, hidden ones too, weighted by the share of confident ones.

    Args:
        model: The network.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        decay: Decay of the teacher's moving average, in [0, 1), see `DAFormer`.
        masked_weight: Weight of the loss on masked images, at least 0.
        **options: See `DACS` and `SelfTraining`; ``distance_weight: 0.005`` adds DAFormer's loss.

    Reference:
        Hoyer et al., MIC, CVPR 2023, arXiv:2212.01322, sec. 3.2.
        Differs: of DACS; patches are an eighth of the image, which are the paper's 64 pixels of
        512; of classes each label weighs by the batch's share of sure ones, not by its own
        confidence, and there is neither an adversary nor minimum class confusion beside it.
    """

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        decay: float | None = 0.999,
        masked_weight: float = 1.0,
        **options: Any,
    ) -> None:
        given: dict[str, Any] = {"decay": decay, "masked_weight": masked_weight}
        super().__init__(model, task, roles, **given, **options)
