"""A stream learned from a memory in which predicted classes are balanced."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.methods.base import Batch
from domainnorm.methods.online_entropy import OnlineEntropy
from domainnorm.methods.reestimation import use_batch_statistics
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import chosen, gathered
from domainnorm.norms.statistics.running import RunningMoments
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class NOTE(OnlineEntropy):
    """Predict a stream by running moments, and learn from a balanced memory of its images.

    Each image, with its predicted class, may enter a memory (see `BalancedMemory`). After every
    ``memory`` images a step is made on the mean entropy of those kept, normalized by their own
    moments, of which ``momentum`` goes into the running ones. Made for networks whose source model
    has ``norm: iabn``, which corrects the moments of all images by those of each; works on others.

    Args:
        model: The source model.
        task: Of one class per image.
        roles: Source and target domains.
        lr: Learning rate of Adam.
        memory: Images that are kept, and between two steps, at least 1.
        momentum: Of the memory's moments in the running ones at each step, in [0, 1].
        **options: See `OnlineEntropy`.

    Reference:
        Gong et al., NOTE: Robust Continual Test-time Adaptation Against Temporal Correlation,
        NeurIPS 2022, arXiv:2208.05117, sec. 3 and alg. 1.
        Differs: the entropy is that of the prediction, in the authors' program divided by the
        number of classes too; images of a batch are predicted together, there one by one; dropout
        is off.
    """

    tasks: tuple[str, ...] = ("classification",)
    remembered: tuple[str, ...] = ("kept.entries", "kept.seen", "count")

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
        self.count = 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over scales and shifts, as in the authors' program."""
        return torch.optim.Adam(self.adapted, lr=self.lr)

    def start_stream(self, domains: tuple[str, ...]) -> None:
        """Evaluation mode, an empty memory."""
        super().start_stream(domains)
        self.eval()
        self.kept.entries, self.kept.seen, self.count = [], {}, 0

    def adapt(self, batch: Batch) -> Tensor:
        """Logits of one batch, whose images enter the memory one by one."""
        with torch.no_grad():
            logits = self.outputs(batch)
        for number, label in enumerate(logits.argmax(1).tolist()):
            alone = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
            alone[number] = True
            self.kept.add(chosen(batch, alone), label)
            self.count += 1
            if self.count % self.kept.size == 0:
                self._learn()
        return logits

    def _learn(self) -> None:
        """A step on the memory."""
        found = [norm.statistics for norm in self.model.norms()]
        tracking = [one for one in found if isinstance(one, RunningMoments)]
        before = [one.momentum for one in tracking]
        use_batch_statistics(self.model)
        for one in tracking:
            one.momentum = self.momentum
        logits = self.outputs(gathered([one for one, _ in self.kept.entries]))
        for one, former in zip(tracking, before, strict=True):
            one.momentum = former
        self.eval()
        self.descend(self.minimized(logits).mean())


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
        self.entries: list[tuple[Batch, int]] = []
        self.seen: dict[int, int] = {}

    def add(self, batch: Batch, label: int) -> None:
        """Take in a new image, or not."""
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
