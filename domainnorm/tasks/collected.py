"""What a validation or test collects: predictions of every domain, and what an encoder told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, distributed

from domainnorm.condition import Estimate
from domainnorm.evaluation import DomainsTold, Evaluated
from domainnorm.norms.kernels.partition import by_row, several_ranks, sum_over_ranks
from domainnorm.tasks.base import Task

# Outputs (K, H, W) for an input, and the mask (h, w) of its image as the dataset has it -> outputs
# (K, h, w), and classes (h, w) with −1 for none.
Restore: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Collected:
    """Predictions of one validation or test by domain.

    Args:
        task: Whose stores are filled.
        names: Domains by label.
        domains: Those whose images come.
        device: Where sums are kept.
        restore: For masks that are compared at their own size.
        encoded: Whether an encoder tells domains, which is counted then.
    """

    def __init__(
        self,
        task: Task,
        names: Sequence[str],
        domains: Sequence[str],
        device: torch.device,
        *,
        restore: Restore | None = None,
        encoded: bool = False,
    ) -> None:
        self.names, self.domains, self.device, self.restore = names, domains, device, restore
        self.stores: list[Any] = [task.store().to(device) for _ in domains]
        self.told: list[Any] = [DomainsTold().to(device) for _ in domains if encoded]
        self._images = 0  # of this rank that came without an index

    def by_domain(self, domain: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Positions in `domains` of labels (N,), and which images (N,) are so."""
        for label, chosen in by_row(domain).items():
            yield self.domains.index(self.names[label]), chosen

    def keep(self, logits: Tensor, batch: Mapping[str, Any]) -> None:
        """Logits (N, K, ...) of a batch, each image for its domain."""
        index = batch["index"] if "index" in batch else self._counted(logits)
        for position, chosen in self.by_domain(batch["domain"]):
            store = self.stores[position]
            if "original" not in batch:
                store.update(logits[chosen], batch["target"][chosen], index[chosen])
                continue
            assert self.restore is not None
            for number in chosen.nonzero()[:, 0].tolist():
                restored, classes = self.restore(logits[number], batch["original"][number])
                store.update(restored[None], classes[None], index[number][None])

    def _counted(self, logits: Tensor) -> Tensor:
        """An index for images that have none: their place among those of all ranks."""
        came = torch.arange(len(logits), device=logits.device) + self._images
        self._images += len(logits)
        if not several_ranks():
            return came
        return came * distributed.get_world_size() + distributed.get_rank()

    def tell(self, estimate: Estimate, batch: Mapping[str, Any]) -> None:
        """What the encoder says of a batch."""
        for position, chosen in self.by_domain(batch["domain"]):
            part = Estimate(*(one[chosen] for one in estimate))
            self.told[position].update(part, batch["domain"][chosen])

    def predictions(self) -> dict[str, Evaluated]:
        """Predictions by domain; those without images have none."""
        return dict(self._filled(self.stores))

    def domains_told(self) -> dict[str, dict[str, float]]:
        """Metrics of the encoder by domain; empty without one."""
        return dict(self._filled(self.told))

    def _filled(self, collected: Sequence[Any]) -> Iterator[tuple[str, Any]]:
        """Domain and result of what has collected images, on any rank."""
        came = torch.tensor([float(one.update_called) for one in collected], device=self.device)
        came = sum_over_ranks(came) if several_ranks() else came
        for domain, one, images in zip(self.domains, collected, came.tolist(), strict=False):
            if images:
                yield domain, one.compute()
