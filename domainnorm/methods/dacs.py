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
    """Half of the classes of a source mask are pasted onto target images, which a teacher labels.

    All pixels of the target count, by the share of those in the batch whose confidence reaches
    ``threshold``; pasted ones count fully. For classes nothing is mixed: what is left is a teacher
    whose labels all count, by that share.

    Args:
        model: The network.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        threshold: Confidence above which a pixel adds to the share.
        quality: See `SelfTraining`.
        mix: See `SelfTraining`.
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
