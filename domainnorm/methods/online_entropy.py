"""Streams on which a step is made after each batch: what these methods share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from domainnorm.backbones import DomainModel
from domainnorm.errors import ConversionError
from domainnorm.losses import entropies, opinion_entropies
from domainnorm.methods.base import Batch
from domainnorm.methods.online_method import OnlineMethod
from domainnorm.methods.reestimation import use_batch_statistics
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import chosen
from domainnorm.tasks import Task


class OnlineEntropy(OnlineMethod):
    """Predict a stream of the target, and make a step on the entropy of some samples of each batch.

    Norms use the statistics of the batch, dropout is off; its predictions are those made before the
    step, which moves scales and shifts alone: of tables the rows of the target. A sample is
    an image, or a pixel of masks.

    Args:
        model: The source model.
        task: Metrics.
        roles: Source and target domains.
        lr: Learning rate of SGD with momentum 0.9.
        depth: Share of the norm layers, from the input on, that adapt, in (0, 1].
        **options: See `OnlineMethod`.

    Attributes:
        adapted: What moves.
        start: It, before the stream.
        most: The largest possible entropy, ln K.
        opinion: Whether the entropy of opinions is minimized, see `opinion_entropies`.

    Raises:
        ConversionError: No conditional norm whose scale could adapt.
    """

    needs: str = "weights"
    tasks: tuple[str, ...] = ("classification", "segmentation")

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        lr: float = 2.5e-4,
        depth: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, **options)
        norms = [norm for norm in model.norms() if any(True for _ in norm.modulation.parameters())]
        if not norms:
            name = type(self).__name__.lower()
            raise ConversionError(
                f"{name}: the model has no conditional norm with a scale to adapt"
            )
        chosen = norms[: max(1, round(depth * len(norms)))]
        self.adapted = [p for norm in chosen for p in norm.modulation.parameters()]
        self.train_only(self.adapted)
        self.lr = lr
        self.opinion = False
        self.most = math.log(len(task.class_names))
        self.start: list[Tensor] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD over scales and shifts."""
        return torch.optim.SGD(self.adapted, lr=self.lr, momentum=0.9)

    def start_stream(self, domains: tuple[str, ...]) -> None:
        """Norms use statistics of batches, dropout is off."""
        use_batch_statistics(self.model)
        self.start = [parameter.detach().clone() for parameter in self.adapted]

    @torch.no_grad()
    def row_opened(self, row: int) -> None:
        """`start` has the row as it was opened."""
        tables = {owned.tensor for owned in self.model.domain_rows()}
        for parameter, former in zip(self.adapted, self.start, strict=True):
            if parameter in tables:
                former[row] = parameter[row]

    def adapt(self, batch: Batch) -> Tensor:
        """Logits of one batch, and a step on what `loss_of` makes of it."""
        logits = self.outputs(batch)
        loss = self.loss_of(samples(logits))
        if loss is not None:
            self.descend(loss)
        return logits

    @property
    def trained_domains(self) -> tuple[str, ...]:
        """The targets, whose rows move; source images are looked at, if at all."""
        return self.roles.lent(self.roles.target)

    def loss_of(self, logits: Tensor) -> Tensor | None:
        """Scalar of the logits (M, K) of samples; None for no step."""
        raise NotImplementedError(f"{type(self).__name__}: loss_of")

    def minimized(self, logits: Tensor) -> Tensor:
        """The entropies (M,) that are minimized."""
        return opinion_entropies(logits) if self.opinion else entropies(logits)

    def gradients(self, loss: Tensor) -> Sequence[Tensor]:
        """Of `adapted`; zeros where the loss does not depend on one."""
        return torch.autograd.grad(loss, self.adapted, allow_unused=True, materialize_grads=True)

    @torch.no_grad()
    def go_back(self) -> None:
        """To the source model, with an optimizer that knows of no step."""
        for parameter, former in zip(self.adapted, self.start, strict=True):
            parameter.copy_(former)
        assert self.stream_optimizer is not None
        self.stream_optimizer.state.clear()


class OnlineMemory(OnlineEntropy):
    """Predict a stream, and learn from a memory of its images: one step every ``memory`` images.

    Images enter the memory one by one, each with its prediction. Norms normalize by running
    moments. A stream with fewer images than the memory's size teaches nothing.

    Attributes:
        kept: The memory, see `RoTTA` and `NOTE`.
        count: Images so far.
    """

    tasks: tuple[str, ...] = ("classification",)
    remembered: tuple[str, ...] = ("kept.stored", "count")
    kept: ImageMemory
    count: int = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over scales and shifts, as in both programs."""
        return torch.optim.Adam(self.adapted, lr=self.lr)

    def start_stream(self, domains: tuple[str, ...]) -> None:
        """Evaluation mode, an empty memory."""
        super().start_stream(domains)
        self.eval()
        self.kept.clear()
        self.count = 0

    def adapt(self, batch: Batch) -> Tensor:
        """Logits of one batch by what is deployed, a teacher where there is one; and steps."""
        with torch.no_grad():
            logits = self.outputs(batch, model=self.deployed)
        alone = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        told = zip(logits.argmax(1).tolist(), entropies(logits).tolist(), strict=True)
        for one, (label, entropy) in zip(alone, told, strict=True):
            self.kept.add(chosen(batch, one), label, entropy)
            self.count += 1
            if self.count % self.kept.size == 0:
                self._learn()
        return logits

    def _learn(self) -> None:
        """A step on the memory."""
        raise NotImplementedError(f"{type(self).__name__}: _learn")


class ImageMemory(Protocol):
    """Some images of a stream.

    Attributes:
        size: How many there is room for.
        stored: What is kept, of tensors, numbers, tuples, lists and mappings.
    """

    size: int
    stored: Any

    def add(self, batch: Batch, label: int, entropy: float) -> None:
        """Take in an image, a batch of one, with its predicted class and entropy; or not."""

    def clear(self) -> None:
        """Keep nothing."""


def samples(logits: Tensor) -> Tensor:
    """(N, K) as they are, (N, K, H, W) as (N · H · W, K)."""
    return logits.movedim(1, -1).flatten(0, -2)


def moved(parameters: Sequence[nn.Parameter], by: Sequence[Tensor], factor: float) -> None:
    """Add ``factor · by`` in place, which autograd does not see."""
    with torch.no_grad():
        for parameter, step in zip(parameters, by, strict=True):
            parameter.add_(step, alpha=factor)
