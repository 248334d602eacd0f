"""The source domain with the largest loss weighs most."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.losses.precision import WideBuffers
from domainnorm.methods.base import Batch
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import over_ranks
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class GroupDRO(WideBuffers, SupervisedMethod):
    """Supervised loss on the source domains; the domain with the largest loss weighs most.

    ``q_d ← q_d exp(step_size · L_d) / Σ``, then ``L = Σ_d q_d L_d``, with the loss ``L_d`` of each
    source domain in the batch. Weights start equal. With one source this is `SourceOnly`.

    Args:
        model: The network.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        step_size: Step size of the domain weights, at least 0; 0 keeps them equal.
        **options: See `SupervisedMethod`.

    Attributes:
        domain_weights: q, (S,) for the S source domains; logged as ``train/weight_<domain>``.

    Reference:
        Sagawa et al., Distributionally Robust Neural Networks for Group Shifts, ICLR 2020,
        arXiv:1911.08731, alg. 1; ``step_size`` 0.01 is the authors', and DomainBed's.
        Differs: groups are domains, all of them in every batch, where the paper draws one group and
        has classes and attributes as groups too; no adjustment to the groups' sizes.
    """

    labelled: str = "source"
    starts_from: str = "backbone"
    domain_weights: Tensor

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        step_size: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.step_size = step_size
        sources = len(roles.source)
        self.register_buffer("domain_weights", torch.full((sources,), 1 / sources))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """See `Method`; domains that share rows are groups of their own all the same."""
        batch = self._completed(batch, training=True)
        loss = super().training_step({**batch, "group": batch["domain"]}, batch_idx)
        named = zip(self.roles.source, self.domain_weights, strict=True)
        self.log_dict(
            {f"train/weight_{name}": weight for name, weight in named},
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(batch["target"]),
        )
        return loss

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted sum of the domains' losses, by weights that have seen them."""
        logits, target, group = self.outputs(batch), batch["target"], batch["group"]
        of_domains = [
            self.task.loss(logits[group == label], target[group == label])
            if bool((group == label).any())
            else logits.sum() * 0.0
            for label in map(self.model.domain_names.index, self.roles.source)
        ]
        losses = torch.stack(of_domains)
        self._reweigh(losses.detach().float())
        # A copy: the buffer moves again before the gradients of accumulated batches are all taken.
        return {"supervised": (self.domain_weights.clone() * losses).sum()}

    def _reweigh(self, losses: Tensor) -> None:
        """Move the weights by losses (S,), those of all ranks averaged."""
        moved = self.domain_weights.log() + self.step_size * over_ranks(losses)
        self.domain_weights.copy_(moved.softmax(0))
