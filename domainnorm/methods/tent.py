"""Entropy minimization on the target's scale and shift."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from domainnorm.backbones import DomainModel, domain_parameters
from domainnorm.errors import ConversionError
from domainnorm.losses import entropy_loss
from domainnorm.methods.base import Batch, Method
from domainnorm.methods.reestimation import estimate_moments, use_batch_statistics
from domainnorm.methods.roles import Roles
from domainnorm.methods.supervised import create_optimizer, scheduled
from domainnorm.norms.statistics.running import RunningMoments
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class TENT(Method):
    """Train scale and shift to minimize the entropy of predictions on unlabelled target images.

    ``min over scale, shift of  mean_n H(softmax(f(x_n)))``, normalization with the statistics of
    the target's batches. With a table of scales only the target's rows can change; a shared
    modulation is adapted for all domains.

    Args:
        model: The source model.
        task: Metrics.
        roles: Source and target domains.
        lr: Peak learning rate.
        epochs: Passes over the target's training images.
        optimizer: ``adamw``, ``adam`` (the paper's) or ``sgd``, see `create_optimizer`.
        schedule: Learning rate after the warm-up: ``cosine``, ``poly``, ``step`` or ``constant``,
            see `rate_at`.
        warmup: Fraction of all steps in which the rate rises linearly, in [0, 1).

    Reference:
        Wang et al., Tent: Fully Test-time Adaptation by Entropy Minimization, ICLR 2021,
        arXiv:2006.10726, eq. 1.
        Differs: adapts on the target's unlabelled training split and is tested on its test split,
        with running moments re-estimated after the last step instead of per-batch statistics, so
        a prediction does not depend on the other images of its batch.
    """

    unlabelled: str = "target"
    starts_from: str = "source_only"
    augmented: bool = False
    needs: str = "weights"
    may_average: bool = True
    tasks: tuple[str, ...] = ("classification", "segmentation")  # findings exclude no other

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        lr: float = 1e-3,
        epochs: int = 5,
        optimizer: Literal["adamw", "adam", "sgd"] = "adam",
        schedule: Literal["cosine", "poly", "step", "constant"] = "constant",
        warmup: float = 0.0,
    ) -> None:
        super().__init__(model, task, roles)
        chosen = domain_parameters(model)
        if not chosen:
            raise ConversionError("tent: the model has no conditional norm with a scale to adapt")
        self.lr = lr
        self.epochs = epochs
        self.optimizer = optimizer
        self.schedule = schedule
        self.warmup = warmup
        self.train_only(chosen)

    @property
    def max_epochs(self) -> int | None:
        """The recipe's ``epochs`` of this method."""
        return self.epochs

    def on_train_epoch_start(self) -> None:
        """Norms use batch statistics; dropout and stochastic depth are off."""
        use_batch_statistics(self.model)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Mean entropy of one batch of target images."""
        return {"entropy": entropy_loss(self.outputs(batch))}

    def on_fit_end(self) -> None:
        """Re-estimate the target's moments under the adapted scales and shifts."""
        # Not on_train_end: a run that was killed after its last epoch resumes without that hook.
        if not any(isinstance(norm.statistics, RunningMoments) for norm in self.model.norms()):
            return
        loader: Any = self.trainer.train_dataloader
        for model in self.networks:
            estimate_moments(model, map(self.ready, loader))

    def configure_optimizers(self) -> Any:
        """Over scales and shifts."""
        made = create_optimizer(self.optimizer, domain_parameters(self.model), self.lr)
        return scheduled(made, self, self.schedule, self.warmup)
