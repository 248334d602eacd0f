"""A stream learned from a memory in which predicted classes are balanced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from domainnorm.backbones import DomainModel
from domainnorm.methods.base import Batch
from domainnorm.methods.online_entropy import OnlineMemory
from domainnorm.methods.reestimation import tracked_statistics, use_batch_statistics
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import gathered
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class NOTE(OnlineMemory):
    """Predict a stream by running moments, and learn from a class-balanced memory of its images.

    Each image may enter a memory with its predicted class (see `BalancedMemory`). After every
    ``memory`` images, a step minimizes the mean entropy of the images in memory. Their own moments
    normalize them, and update the running moments (``momentum``). NOTE is made for source models
    with ``norm: iabn``, which corrects running moments by those of each image; it works on others.

    Args:
        model: The source model.
        task: Classification.
        roles: Source and target domains.
        lr: Learning rate of Adam.
        memory: Images in the memory, and images between two steps, at least 1.
        momentum: Weight of the memory's moments in each update of the running ones, in [0, 1].
        **options: See `OnlineMemory`.

    Reference:
        Gong et al., NOTE: Robust Continual Test-time Adaptation Against Temporal Correlation,
        NeurIPS 2022, arXiv:2208.05117, sec. 3 and alg. 1.
        Differs: the entropy is that of the prediction, in the authors' program divided by the
        number of classes too; images of a batch are predicted together, there one by one; dropout
        is off.
    """

    kept: BalancedMemory

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        lr: float = 1e-4,
        memory: int = 64,
        momentum: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, lr=lr, **options)
        self.kept = BalancedMemory(memory)
        self.momentum = momentum

    def _learn(self) -> None:
        """A step on the memory."""
        use_batch_statistics(self.model)
        with followed(self.model, self.momentum):
            logits = self.outputs(gathered([one for one, _ in self.kept.entries]))
        self.eval()
        self.descend(self.minimized(logits).mean())


@contextmanager
def followed(model: DomainModel, momentum: float) -> Iterator[None]:
    """Inside the block running moments get this share of those of a batch."""
    tracked = tracked_statistics(model)
    before = [one.momentum for one in tracked]
    try:
        for one in tracked:
            one.momentum = momentum
        yield
    finally:
        for one, former in zip(tracked, before, strict=True):
            one.momentum = former


class BalancedMemory:
    """Images of a stream, equally many of each predicted class, each class a sample of its own.

    Prediction-balanced reservoir sampling: where it is full, an image of another class than the
    largest takes the place of a random one of these; one of the largest class takes that of a
    random one of its own with probability (kept of this class) / (seen of this class).

    Args:
        size: Images.

    Attributes:
        entries: Batches of one image, and their predicted class.
        seen: Images of each class so far.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.clear()

    def clear(self) -> None:
        """Keep nothing."""
        self.entries: list[tuple[Batch, int]] = []
        self.seen: dict[int, int] = {}

    @property
    def stored(self) -> tuple[Any, ...]:
        """`entries` and `seen`."""
        return self.entries, self.seen

    @stored.setter
    def stored(self, value: tuple[Any, ...]) -> None:
        self.entries, self.seen = value

    def add(self, batch: Batch, label: int, entropy: float = 0.0) -> None:
        """Take in a new image, or not; its entropy is not asked for."""
        self.seen[label] = self.seen.get(label, 0) + 1
        if len(self.entries) >= self.size and not self._make_room(label):
            return
        self.entries.append((batch, label))

    def _make_room(self, label: int) -> bool:
        """Whether an image has left for one of this class."""
        counts: dict[int, int] = {}
        for _, one in self.entries:
            counts[one] = counts.get(one, 0) + 1
        most = max(counts.values())
        largest = sorted(one for one, number in counts.items() if number == most)
        leaving = label
        if label not in largest:
            leaving = largest[_draw(len(largest))]
        elif float(torch.rand(())) > most / self.seen[label]:
            return False
        own = [number for number, (_, one) in enumerate(self.entries) if one == leaving]
        del self.entries[own[_draw(len(own))]]
        return True


def _draw(count: int) -> int:
    return int(torch.randint(count, ()))
