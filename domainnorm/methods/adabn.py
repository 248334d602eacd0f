"""The target's statistics, re-estimated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from torch import Tensor, nn

from domainnorm.backbones import DomainModel
from domainnorm.errors import ConversionError
from domainnorm.methods.base import Batch, Method
from domainnorm.methods.reestimation import MomentPass
from domainnorm.methods.roles import Roles
from domainnorm.norms.statistics.running import RunningMoments
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class AdaBN(Method):
    """Re-estimate the running moments of the target's rows on its unlabelled training images.

    One pass, no gradients. Scale and shift stay those of the source. Helps where domains differ
    in low-level statistics; hurts where the class balance or the content of the target differs, or
    where a strongly augmented source covers the target's statistics already.

    Args:
        model: The source model.
        task: Metrics.
        roles: Source and target domains.
        moments: Of target images as they are (``clean``), or augmented as the images of the source
            were when the model was trained (``as_trained``).

    Reference:
        Li et al., Revisiting Batch Normalization for Practical Domain Adaptation, 2016,
        arXiv:1603.04779, alg. 1.
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
    ) -> None:
        super().__init__(model, task, roles)
        if not any(isinstance(norm.statistics, RunningMoments) for norm in model.norms()):
            raise ConversionError(
                "adabn: this model has no running moments to re-estimate (no norm has batch or "
                "domain statistics); take a backbone with batch norms, and norm 'dsbn' or 'cbn'"
            )
        self.automatic_optimization = False
        self._pass = MomentPass(model)

    @property
    def max_epochs(self) -> int | None:
        """One pass over the target."""
        return 1

    def _trained(self) -> Iterator[tuple[nn.Parameter, int]]:
        """None: only running moments change."""
        return iter(())

    def on_train_epoch_start(self) -> None:
        """Start from empty sums."""
        self._pass = MomentPass(self.model)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """None; the moments of one batch are observed."""
        self._pass.observe(batch)
        return {}

    def on_train_epoch_end(self) -> None:
        """Write the pooled moments into the target's rows."""
        self._pass.write()

    def configure_optimizers(self) -> Any:
        """Nothing is optimized."""
        return None
