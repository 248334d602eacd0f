"""Pseudo-labels of a moving average of the network, on strongly changed and mixed images."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.errors import DomainNormError
from domainnorm.methods.base import Batch, split
from domainnorm.methods.mixing import class_mix, cut_mix
from domainnorm.methods.reestimation import kept_moments
from domainnorm.methods.roles import Roles
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class MeanTeacher(SupervisedMethod):
    """Supervised loss on the source, and the teacher's confident labels on changed target images.

    The teacher, a moving average of the network and its running moments, labels the weak view of
    target images; where its confidence reaches ``threshold`` the network learns these labels on the
    strong view, into which ``mix`` pastes parts of other images. Strong and mixed images use the
    target's rows, and move no running moments: they are images of no domain. The weak view moves
    those of the target. The teacher is what is tested and saved.

    Args:
        model: The source model.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        decay: Weight of the teacher in its moving average, in [0, 1).
        threshold: Least confidence of a pseudo-label, in [0, 1].
        target_weight: Of the loss on target images.
        mix: ``class`` pastes half of the classes of a source mask, with its labels (for masks);
            ``cut`` a box of another target image (classes or masks); ``none`` nothing.
        **options: See `SupervisedMethod`.

    Raises:
        DomainNormError: ``mix: class`` for a task without masks.

    Reference:
        Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017, arXiv:1703.01780,
        eq. 2; Sohn et al., FixMatch, NeurIPS 2020, arXiv:2001.07685, eq. 4; Tranheden et al., DACS,
        WACV 2021, arXiv:2007.08702, alg. 1 (``mix: class``).
        Differs: pseudo-labels below the threshold do not count, instead of weighing all pixels of
        an image by the share above it; a row of norms for each domain.
    """

    labelled: str = "source"
    unlabelled: str = "target"
    starts_from: str = "source_only"
    balance: str = "role"
    views: str = "two"
    tasks: tuple[str, ...] = ("classification", "segmentation")
    for_masks: tuple[tuple[str, str], ...] = (("mix", "class"),)

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        decay: float = 0.99,
        threshold: float = 0.9,
        target_weight: float = 1.0,
        mix: Literal["none", "class", "cut"] = "none",
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        if mix == "class" and task.labels != "segmentation":
            raise DomainNormError("method.mix: 'class' mixes masks, and this task has none; 'cut'")
        self.threshold = threshold
        self.target_weight = target_weight
        self.mix = mix
        self.follow(decay)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Supervised loss on the source, and that of pseudo-labels on changed target images."""
        source, target = split(batch)
        logits = self.outputs(source)
        with torch.no_grad():
            self.outputs(target)  # in training mode: the target's moments follow its own images
            confidence, label = self.outputs(target, model=self.deployed).softmax(1).max(1)
        label = torch.where(confidence >= self.threshold, label, -1)
        image, parts = target["strong"], [(1.0, label)]
        if self.mix == "class":
            image, parts = class_mix(image, label, source["image"], source["target"])
        elif self.mix == "cut":
            image, parts = cut_mix(image, label)
        with kept_moments(self.model):
            guessed = self.outputs({**target, "strong": image}, view="strong")
        losses = [share * self.task.loss(guessed, part) for share, part in parts]
        return {
            "supervised": self.task.loss(logits, source["target"]),
            "target": self.target_weight * torch.stack(losses).sum(),
        }
