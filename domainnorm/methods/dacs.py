"""Objects of source images pasted onto target images, labelled by a teacher."""

from __future__ import annotations

from typing import Any, Literal

from domainnorm.backbones import DomainModel
from domainnorm.methods.roles import Roles
from domainnorm.methods.self_training import SelfTraining
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class DACS(SelfTraining):
    """Paste half of the classes of a source mask onto target images, which a teacher labels.

    The loss counts all target pixels, weighted by the share of pixels in the batch whose confidence
    reaches ``threshold``; pasted pixels count fully. Classification mixes nothing: all labels of
    the teacher count, weighted by that share.

    Args:
        model: The network.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        threshold: Least confidence of a pixel that counts in the share, in [0, 1].
        quality: How the loss counts labels: ``mean``, ``sum`` or ``share``, see `SelfTraining`.
        mix: What is pasted: ``auto``, ``none``, ``class`` or ``cut``, see `SelfTraining`.
        **options: See `SelfTraining`.

    Reference:
        Tranheden et al., DACS, WACV 2021, arXiv:2007.08702, alg. 1.
        Differs: colours change before the images are mixed, and those of pasted pixels as the
        source's augmentation says; the teacher is in evaluation mode, follows moments too, leaves
        the weights before the first step out of its mean, and is what is tested.
    """

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        threshold: float = 0.968,
        quality: Literal["mean", "sum", "share"] = "share",
        mix: Literal["auto", "none", "class", "cut"] = "auto",
        **options: Any,
    ) -> None:
        given: dict[str, Any] = {"threshold": threshold, "quality": quality, "mix": mix}
        super().__init__(model, task, roles, **given, **options)
