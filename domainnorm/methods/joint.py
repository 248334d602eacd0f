"""One model for all labelled domains, each under its own norms."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.errors import ConversionError
from domainnorm.losses import domain_rows_loss
from domainnorm.methods.base import Batch
from domainnorm.methods.roles import Roles
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class Joint(SupervisedMethod):
    """Supervised training on source and target labels, mixed in every batch (supervised).

    All domains share everything except the norms.

    Args:
        model: The network.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        rows_weight: Weight, at least 0, of `domain_rows_loss`, which pulls the rows of the domains
            to their mean; above 0 it helps domains with few images.
        **options: See `SupervisedMethod`.

    Raises:
        ConversionError: ``rows_weight`` without a row per domain.

    Reference:
        Rebuffi et al., Learning multiple visual domains with residual adapters, NeurIPS 2017,
        arXiv:1705.08045, sec. 3 (domain-specific normalization as the baseline).
    """

    labelled: str = "all"
    starts_from: str = "backbone"

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        rows_weight: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        self.rows_weight = rows_weight
        if rows_weight and roles.rows != "domain":
            raise ConversionError(
                f"method.rows_weight: got {rows_weight}, but domains share rows; set data.rows to "
                "'domain', or rows_weight to 0"
            )
        if rows_weight and not any(True for norm in model.norms() for _ in norm.modulation.rows()):
            raise ConversionError(
                f"method.rows_weight: got {rows_weight}, but no norm has a row per domain; use "
                "norm dsbn, cin or cbn, or set it to 0"
            )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Supervised loss of one mixed batch, plus the distance of rows to their mean."""
        losses = super().losses(batch)
        if self.rows_weight:
            rows = (table for norm in self.model.norms() for table in norm.modulation.rows())
            losses["rows"] = self.rows_weight * domain_rows_loss(rows)
        return losses
