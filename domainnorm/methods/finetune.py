"""Supervised fine-tuning on the target, of the norms alone, the head, or everything."""

from __future__ import annotations

from typing import Any, Literal

from torch.nn.modules.batchnorm import _BatchNorm

from domainnorm.backbones import DomainModel, domain_parameters
from domainnorm.errors import ConversionError
from domainnorm.methods.heads import heads_of
from domainnorm.methods.roles import Roles
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class Finetune(SupervisedMethod):
    """Supervised fine-tuning of the source model on each target's labels (supervised).

    ``train: norms`` changes only the norms. With a row per domain (``dsbn``, ``cin``) that is a few
    kilobytes, and the outputs of all other domains stay identical, bit for bit.

    Args:
        model: The source model.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        train: What learns: ``norms``, ``head`` (the classifier, shared by all domains) or ``all``.
        lr: Peak learning rate.
        **options: See `SupervisedMethod`.

    Reference:
        Bilen and Vedaldi, Universal representations, 2017, arXiv:1701.07275 (norms only).
    """

    labelled: str = "target"
    starts_from: str = "source_only"

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        train: Literal["norms", "head", "all"] = "norms",
        lr: float = 3e-3,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, lr=lr, **options)
        if train != "all":
            chosen = domain_parameters(model)
            if train == "head":
                chosen = [parameter for head in heads_of(model) for parameter in head.parameters()]
            if not chosen:
                raise ConversionError(f"method.train: this model has no parameters in '{train}'")
            self.train_only(chosen)
        self.train_part = train

    def on_train_epoch_start(self) -> None:
        """What does not learn keeps its running moments, norms that were not converted included."""
        if self.train_part == "head":
            self.model.eval()
        elif self.train_part == "norms":
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
