"""Weights averaged over the valley of the source's validation loss."""

from __future__ import annotations

from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from domainnorm.backbones import DomainModel
from domainnorm.errors import DomainNormError
from domainnorm.losses.precision import WideBuffers
from domainnorm.methods.base import Batch
from domainnorm.methods.reestimation import estimate_moments
from domainnorm.methods.roles import Roles
from domainnorm.methods.supervised import SupervisedMethod
from domainnorm.norms.kernels.partition import several_ranks, sum_over_ranks
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class SWAD(SupervisedMethod):
    """Supervised training on the source; weights are averaged over a flat valley of the loss.

    Each epoch averages the weights of its steps. `LossValley` decides by the loss on the source's
    validation images whether the average of an epoch enters the result. At the end the running
    moments are estimated anew for the averaged weights. The rate stays at its peak after the
    warm-up. Without a valley, as in few epochs, the result is the mean since the least loss.

    Args:
        model: The network.
        task: Supervised loss and metrics.
        roles: Source and target domains.
        start_patience: The valley starts at an epoch if none of this many epochs, from it on, has a
            lower loss; at least 1.
        end_patience: Epochs in a row above the threshold that end the valley, at least 1.
        tolerance: Threshold as a multiple of the mean loss of the first ``start_patience`` epochs
            of the valley; at least 1.
        schedule: Learning rate after the warm-up, see `SupervisedMethod`; with ``constant`` the
            weights keep moving through the valley.
        moments: Images for the running moments: augmented ones (``as_trained``), or whole images
            without augmentation (``clean``).
        **options: See `SupervisedMethod`.

    Raises:
        DomainNormError: In training, no validation.

    Reference:
        Cha et al., SWAD: Domain Generalization by Seeking Flat Minima, NeurIPS 2021,
        arXiv:2102.08604, alg. 1 and sec. 3.2; defaults of sec. B.2.
        Differs: the loss is looked at after epochs, not every 50 to 300 steps; the epochs that
        define the threshold always count, and the authors' code counts some epochs before the start
        and some twice.
    """

    labelled: str = "source"
    starts_from: str = "backbone"
    may_average: bool = False

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        start_patience: int = 3,
        end_patience: int = 6,
        tolerance: float = 1.3,
        schedule: Literal["cosine", "poly", "step", "constant"] = "constant",
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, schedule=schedule, **options)
        size = sum(parameter.numel() for parameter in model.parameters())
        self.valley = LossValley(start_patience, end_patience, tolerance)
        self.epoch_mean = WeightMean(size)
        self.result = WeightMean(size)
        self.doubtful = WeightMean(size)  # epochs above the threshold, which may be the end
        # Ranks have the same weights, and so the same means: nothing to send at every step.
        means = ("epoch_mean.", "result.", "doubtful.")
        self._ddp_params_and_buffers_to_ignore = [
            name for name, _ in self.named_buffers() if name.startswith(means)
        ]
        self._losses: dict[int, list[tuple[Tensor, int]]] = {}

    def on_fit_start(self) -> None:
        """Refuse training without validation, which tells where the valley is."""
        super().on_fit_start()
        if not self.eval_domains or not self.trainer.enable_validation:
            raise DomainNormError("swad: no validation images; it averages weights by their loss")

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """After an optimizer step: the weights enter the mean of this epoch."""
        super().on_train_batch_end(outputs, batch, batch_idx)
        if self.global_step != self._position[1]:
            parts = [parameter.detach().reshape(-1) for parameter in self.model.parameters()]
            self.epoch_mean.add(torch.cat(parts))

    def on_validation_epoch_start(self) -> None:
        """Start collecting losses, and what is collected anyway."""
        super().on_validation_epoch_start()
        self._losses = {position: [] for position in range(len(self.eval_domains))}

    def keep(self, logits: Tensor, batch: Batch) -> None:
        """Collect predictions, and in validation losses."""
        super().keep(logits, batch)
        if not self.trainer.validating:
            return
        for position, chosen in self.collected.by_domain(batch["domain"]):
            loss = self.task.loss(logits[chosen], batch["target"][chosen]).detach()
            self._losses[position].append((loss, len(logits[chosen])))

    def on_validation_epoch_end(self) -> None:
        """Log ``val/loss``, and let the mean of this epoch enter the result, or wait, or not."""
        super().on_validation_epoch_end()
        loss = self._validation_loss()
        self.log("val/loss", loss)
        self.valley.observe(loss)
        if self.valley.has_ended:
            self.doubtful.clear()
        elif self.valley.above:
            self.doubtful.merge(self.epoch_mean)
        else:
            if self.valley.age == 1:
                self.result.clear()
            self.result.merge(self.doubtful)
            self.result.merge(self.epoch_mean)
        self.epoch_mean.clear()

    def _validation_loss(self) -> float:
        """Mean over domains of the mean over their images, of all ranks."""
        sums = torch.tensor(
            [
                [
                    sum(float(loss) * count for loss, count in of_domain),
                    sum(n for _, n in of_domain),
                ]
                for of_domain in self._losses.values()
            ],
            device=self.device,
        )
        if several_ranks():
            sums = sum_over_ranks(sums)
        sums = sums[sums[:, 1] > 0]
        return float((sums[:, 0] / sums[:, 1]).mean())

    def on_fit_end(self) -> None:
        """The averaged weights, moments for them, and rows for domains without images."""
        # Not in place: the result has to be the same when this is called again.
        mean = WeightMean(len(self.result.mean)).to(self.result.mean)
        for part in (self.result, self.doubtful):
            mean.merge(part, clear=False)
        parameters = list(self.model.parameters())
        vectors = torch.split(mean.mean, [parameter.numel() for parameter in parameters])
        for parameter, vector in zip(parameters, vectors, strict=True):
            parameter.data.copy_(vector.view(parameter.shape))
        if self.moments == "as_trained":
            self._estimate_moments_of_training()
        super().on_fit_end()

    @torch.no_grad()
    def _estimate_moments_of_training(self) -> None:
        batches = islice(self.datamodule.train_dataloader(), int(self.trainer.num_training_batches))
        estimate_moments(self.model, map(self.ready, batches))


class WeightMean(WideBuffers):
    """A running mean of flat vectors (P,).

    Args:
        size: P.
    """

    mean: Tensor
    count: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def add(self, vector: Tensor, count: int = 1) -> None:
        """Count a vector (P,), or the mean of ``count`` of them."""
        self.count += count
        self.mean += (vector - self.mean) * (count / self.count)

    def merge(self, other: WeightMean, *, clear: bool = True) -> None:
        """Count all vectors of another mean, which is empty then."""
        if other.count:
            self.add(other.mean, int(other.count))
        if clear:
            other.clear()

    def clear(self) -> None:
        """Forget all."""
        self.mean.zero_()
        self.count.zero_()


class LossValley(nn.Module):
    """Where a loss has stopped to fall, and where it rises again.

    A valley starts at a loss that the next ``start_patience - 1`` are not below. The mean of these
    times ``tolerance`` is the threshold; ``end_patience`` losses in a row above it end the valley
    before the first of them.

    Args:
        start_patience: N_s.
        end_patience: N_e.
        tolerance: r.

    Attributes:
        age: Losses since the least one that may be the start, itself included.
        above: Losses above the threshold in a row.
    """

    age: Tensor
    above: Tensor
    least: Tensor
    total: Tensor

    def __init__(self, start_patience: int, end_patience: int, tolerance: float) -> None:
        super().__init__()
        self.start_patience = start_patience
        self.end_patience = end_patience
        self.tolerance = tolerance
        for name, kind in {"age": int, "above": int, "least": float, "total": float}.items():
            dtype = torch.long if kind is int else torch.float32
            self.register_buffer(name, torch.zeros((), dtype=dtype))

    @property
    def has_ended(self) -> bool:
        """Whether nothing after this belongs to the valley."""
        return int(self.above) >= self.end_patience

    def observe(self, loss: float) -> None:
        """Take note of the next loss."""
        if self.has_ended:
            return
        if self.age < self.start_patience:
            if self.age == 0 or loss < self.least:
                self.age.zero_()
                self.total.zero_()
                self.least.fill_(loss)
            self.total += loss
        elif loss > self.tolerance * self.total / self.start_patience:
            self.above += 1
        else:
            self.above.zero_()
        self.age += 1
