"""Mixed images with a teacher's labels, and features that stay near those of pretraining."""

from __future__ import annotations

from typing import Any

from domainnorm.backbones import DomainModel
from domainnorm.methods.dacs import DACS
from domainnorm.methods.roles import Roles
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class DAFormer(DACS):
    """DACS with a slower teacher, and source features that stay near the pretrained ones.

    ``distance_weight · avg over cells of ||F(x) - F_start(x)||``, F the deepest maps of the encoder
    under the rows of the source, F_start those of a frozen copy.

    Args:
        model: The network.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        decay: Decay of the teacher's moving average, in [0, 1). The paper's 0.999 is for tens of
            thousands of steps; in the first 1 / (1 - decay) steps the teacher is a plain mean.
        distance_weight: Weight of the feature distance, at least 0.
        **options: See `DACS` and `SelfTraining`.

    Reference:
        Hoyer et al., DAFormer, CVPR 2022, arXiv:2111.14887, sec. 3.1 and 3.3.
        Differs: of DACS; the network, optimizer and schedule of the recipe; the sampling of rare
        classes is the data's; no rows of pixels are left out at the edges of images; the distance
        counts for all classes unless ``distance_classes`` names the things.
    """

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        decay: float | None = 0.999,
        distance_weight: float = 0.005,
        **options: Any,
    ) -> None:
        given: dict[str, Any] = {"decay": decay, "distance_weight": distance_weight}
        super().__init__(model, task, roles, **given, **options)
