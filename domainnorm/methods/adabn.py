"""The target's statistics, re-estimated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from torch import Tensor, nn

from domainnorm.backbones import DomainModel, norms_at
from domainnorm.errors import ConversionError
from domainnorm.methods.base import Batch, Method
from domainnorm.methods.reestimation import MomentPass, MomentsBefore
from domainnorm.methods.roles import Roles
from domainnorm.norms.statistics.running import RunningMoments
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class AdaBN(Method):
    """Re-estimate the target's running moments on its unlabelled training images.

    It makes one pass without gradients. Scale and shift stay those of the source. It helps where
    domains differ in low-level statistics. It hurts where the target's class balance or content
    differs, or where strong augmentation of the source already covers the target's statistics.

    Args:
        model: The source model.
        task: Metrics.
        roles: Source and target domains.
        moments: Target images for the estimate: unchanged (``clean``), or augmented like the
            source's images in training (``as_trained``).
        share: Weight of the target's moments, in [0, 1]; the source's have the rest. ``unlike``:
            each channel has the weight ``d / (1 + d)``, d its divergence of source and target.
            ``layers``: whole layers have such a weight, see `between`.
        least: Least weight for ``unlike`` and ``layers``, in [0, 1].
        where: Norms to re-estimate: ``all``, ``early``, ``late``, ``encoder``, ``decoder``, or
            globs over paths. Other norms keep the source's moments.

    Raises:
        ConversionError: A model without running moments, or ``where`` without a norm.

    Reference:
        Li et al., Revisiting Batch Normalization for Practical Domain Adaptation, 2016,
        arXiv:1603.04779, alg. 1. Between both moments: You et al., 2021, arXiv:2110.04065, eq. 2.
    """

    unlabelled: str = "target"
    starts_from: str = "source_only"
    augmented: bool = False
    needs: str = "moments"
    takes_shots: bool = False  # nothing is learned from labels

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        moments: Literal["clean", "as_trained"] = "clean",
        share: float | Literal["unlike", "layers"] = 1.0,
        least: float = 0.0,
        where: str | list[str] = "all",
    ) -> None:
        super().__init__(model, task, roles)
        tracked = [norm for norm in model.norms() if isinstance(norm.statistics, RunningMoments)]
        if not tracked:
            raise ConversionError(
                "adabn: this model has no running moments to re-estimate (no norm has batch or "
                "domain statistics); take a backbone with batch norms, and norm 'dsbn' or 'cbn'"
            )
        self.automatic_optimization = False
        self.share = share
        self.least = least
        chosen = set(norms_at(model.backbone, where))
        self._tracked: dict[Any, bool] = {norm.statistics: norm in chosen for norm in tracked}
        if not any(self._tracked.values()):
            raise ConversionError(
                f"method.where: {where!r} names no norm with running moments here; instance norms, "
                "which 'cin' has early, have none"
            )
        self._source = MomentsBefore(self._tracked)
        self._pass = MomentPass(model)

    @property
    def max_epochs(self) -> int | None:
        """One pass over the target."""
        return 1

    def _trained(self) -> Iterator[tuple[nn.Parameter, int]]:
        """None: only running moments change."""
        return iter(())

    def on_train_epoch_start(self) -> None:
        """Start from empty sums, and the moments of the source."""
        self._pass = MomentPass(self.model)
        self._source = MomentsBefore(self._tracked)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """None; the moments of one batch are observed."""
        self._pass.observe(batch)
        return {}

    def on_train_epoch_end(self) -> None:
        """Write the pooled moments into the target's rows, as far as they are wanted."""
        self._pass.write()
        self._source.blend(self.share, self.least)

    def configure_optimizers(self) -> Any:
        """Nothing is optimized."""
        return None
