"""A stream learned from a memory of timely images of all classes, under moments that follow it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.methods.base import Batch
from domainnorm.methods.cotta import varied
from domainnorm.methods.online_entropy import OnlineMemory
from domainnorm.methods.reestimation import tracked_statistics
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import gathered
from domainnorm.norms.kernels.partition import by_row
from domainnorm.norms.statistics.running import RunningMoments
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class RoTTA(OnlineMemory):
    """Predict a stream with a teacher; a student learns from a memory of the stream's images.

    Each image may enter a memory with the class that the teacher predicts (see `TimelyMemory`).
    After every ``memory`` images the student makes a step on the mean of ``sigmoid(-age / memory) ·
    CE(p_teacher, p_student)`` over the memory; it sees other views of the images than the teacher.
    The teacher's scales and shifts follow (``decay``). In these passes each layer first mixes
    ``share`` of the memory's moments into its running moments and normalizes by them, with
    gradients through both.

    Args:
        model: The source model.
        task: Classification.
        roles: Source and target domains.
        lr: Learning rate of Adam.
        memory: Images in the memory, and images between two steps, at least 1.
        share: Weight of the memory's moments in the running ones at each step, in [0, 1].
        decay: Decay of the teacher's moving average, in [0, 1).
        age_weight: Weight of age when an image to drop is chosen, at least 0.
        entropy_weight: Weight of entropy when an image to drop is chosen, at least 0.
        **options: See `OnlineMemory`.

    Reference:
        Yuan et al., Robust Test-Time Adaptation in Dynamic Scenarios, CVPR 2023, arXiv:2303.13899,
        eq. 1 to 9, and the authors' program.
        Differs: views as those of `CoTTA`; dropout is off; layers without running moments, as those
        of transformers, take part with their scales and shifts.
    """

    kept: TimelyMemory

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        lr: float = 1e-3,
        memory: int = 64,
        share: float = 0.05,
        decay: float = 0.999,
        age_weight: float = 1.0,
        entropy_weight: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, lr=lr, **options)
        self.kept = TimelyMemory(memory, len(task.class_names), age_weight, entropy_weight)
        self.share = share
        self.decay = decay
        self.follow(decay)

    def _learn(self) -> None:
        """A step on the memory."""
        # Views are drawn in this order.
        entries = sorted(self.kept.entries, key=attrgetter("label"))
        batch = gathered([one.batch for one in entries])
        age = torch.tensor([one.age / self.kept.size for one in entries])
        view = {**batch, "image": varied(batch["image"])}
        with torch.no_grad(), blended_moments(self.deployed, batch["domain"], self.share):
            told = self.outputs(batch, model=self.deployed).softmax(1)
        with blended_moments(self.model, batch["domain"], self.share):
            logits = self.outputs(view)
        loss = -(told * logits.log_softmax(1)).sum(1)
        self.descend((torch.sigmoid(-age).to(loss) * loss).mean())
        with torch.no_grad():
            pairs = zip(self.deployed.parameters(), self.model.parameters(), strict=True)
            for teacher, student in pairs:
                teacher.lerp_(student, 1 - self.decay)


class Kept(NamedTuple):
    """An image of a memory, as a batch of one, with what was predicted of it."""

    batch: Batch
    label: int
    entropy: float
    age: int


class TimelyMemory:
    """Images of a stream, about equally many of each predicted class, new and sure ones.

    When the memory is full, a new image may replace an old one: of its own class if that has its
    share of the memory, else of the largest classes. The candidate is the image with the largest
    ``age_weight · sigmoid(age / size) + entropy_weight · H / ln K``. It stays if the new image has
    a larger value.

    Args:
        size: Images.
        num_classes: K.
        age_weight: See above.
        entropy_weight: See above.

    Attributes:
        entries: What is kept.
    """

    def __init__(
        self, size: int, num_classes: int, age_weight: float, entropy_weight: float
    ) -> None:
        self.size, self.num_classes = size, num_classes
        self.age_weight, self.entropy_weight = age_weight, entropy_weight
        self.entries: list[Kept] = []

    def clear(self) -> None:
        """Keep nothing."""
        self.entries = []

    @property
    def stored(self) -> list[tuple[Any, ...]]:
        """`entries` as tuples, which are read again without code."""
        return [tuple(one) for one in self.entries]

    @stored.setter
    def stored(self, value: list[tuple[Any, ...]]) -> None:
        self.entries = [Kept(*one) for one in value]

    def add(self, batch: Batch, label: int, entropy: float) -> None:
        """Take in a new image, or not; all of the others are older then."""
        new = Kept(batch, label, entropy, 0)
        counts = [0] * self.num_classes
        for one in self.entries:
            counts[one.label] += 1
        full: list[int] | None = None
        if counts[label] >= self.size / self.num_classes:
            full = [label]
        elif len(self.entries) >= self.size:
            full = [k for k, number in enumerate(counts) if number == max(counts)]
        if full is None or self._make_room(full, self._burden(new)):
            self.entries.append(new)
        self.entries = [Kept(*one[:3], one[3] + 1) for one in self.entries]

    def _make_room(self, labels: list[int], burden: float) -> bool:
        found = [n for n, one in enumerate(self.entries) if one.label in labels]
        # By class, the last of equals; without any there is room.
        found.sort(key=lambda n: (self._burden(self.entries[n]), self.entries[n].label, n))
        if not found:
            return True
        if self._burden(self.entries[found[-1]]) > burden:
            del self.entries[found[-1]]
            return True
        return False

    def _burden(self, one: Kept) -> float:
        old = 1 / (1 + math.exp(-one.age / self.size))
        return self.age_weight * old + self.entropy_weight * one.entropy / math.log(
            self.num_classes
        )


@contextmanager
def blended_moments(model: DomainModel, domain: Tensor, share: float) -> Iterator[None]:
    """Inside the block running moments get a share of those of a batch, and then normalize it.

    Args:
        model: In evaluation mode; its moments move.
        domain: Labels (N,) of the batch, whose rows move.
        share: In [0, 1].
    """
    with ExitStack() as stack:
        for statistics in tracked_statistics(model):
            hook = partial(_blend, domain, share)
            stack.callback(statistics.register_forward_pre_hook(hook).remove)
        yield


def _blend(
    domain: Tensor, share: float, statistics: RunningMoments, inputs: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Move running moments; what is normalized gets the gradients that flow through them."""
    x, changed = inputs[0], torch.empty_like(inputs[0])
    # A folded layer sees several rows of each image.
    rows = domain.repeat_interleave(len(x) // len(domain))
    rows = rows if statistics.tracks_domains else torch.zeros_like(rows)
    shape = 1, -1, *(1,) * (x.ndim - 2)
    for row, own in by_row(rows).items():
        part = x[own]
        running = statistics.running_mean[row], statistics.running_var[row]
        seen = torch.var_mean(part.to(running[0].dtype), [0, *range(2, x.ndim)], correction=0)
        mean, var = (torch.lerp(a, b, share) for a, b in zip(running, seen[::-1], strict=True))
        with torch.no_grad():
            for one, moment in zip(running, (mean, var), strict=True):
                one.copy_(moment)
        # Equal to ``part``: normalized by numbers it is what mean and var would make of it.
        ratio = ((var.detach() + statistics.eps) / (var + statistics.eps)).sqrt().view(shape)
        changed[own] = ((part - mean.view(shape)) * ratio + mean.detach().view(shape)).to(x)
    return changed, *inputs[1:]
