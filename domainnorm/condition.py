"""What the norms of one model are conditioned on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from domainnorm.errors import ConditionError

# Module path -> mean and biased variance of each sample and channel, (N, C) each.
RecordedMoments: TypeAlias = dict[str, tuple[Tensor, Tensor]]
T = TypeVar("T")


@dataclass(frozen=True)
class Condition:
    """What is known of each sample of one batch; a norm raises when it needs what is not given.

    Its tensors are not written to afterwards: what norms derive from them is kept.

    Args:
        domain: Labels, (N,) int64, in ``0..D-1``, or −1 where ``unseen`` says what that means.
        weights: Soft domain weights, (N, D), rows sum to one; instead of ``domain``.
        embedding: (N, E).
        map: Layout or guidance map, (N, M, H, W), of any size.
        style: Moments of a style image by layer path, from `ConditionSlot.recording`.
        thumbnail: Moments of the small copy of the full image by layer path, likewise.
        chance: Uniform numbers in [0, 1), (N,): layers with condition dropout ``p`` drop the
            domain of samples below ``p``, so that a sample loses it in all layers or in none.
        unseen: What is done about labels of −1, samples of domains the model does not know (in
            evaluation): ``mean``, ``batch`` or ``nearest``, see `DomainModel.unseen`; empty where
            there is none.
        far: Samples that an encoder finds near no known domain, (N,) bool, where ``unseen`` says
            what that means for them too; their ``weights`` are equal parts.
        settle: What gives the condition of this pass from the input of the first norm, (N, C, *),
            where it is not known before; the norm puts the result in the place of this one.
    """

    domain: Tensor | None = None
    weights: Tensor | None = None
    embedding: Tensor | None = None
    map: Tensor | None = None
    style: RecordedMoments | None = None
    thumbnail: RecordedMoments | None = None
    chance: Tensor | None = None
    unseen: str = ""
    far: Tensor | None = None
    settle: Callable[[Tensor], Condition] | None = None
    _derived: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, key: Any, derive: Callable[[], T]) -> T:
        """What ``derive`` returns, computed by the first layer that asks for ``key`` (eager only).

        Made outside inference mode, so that a later forward pass with gradients can use it.
        """
        if key not in self._derived:
            with torch.inference_mode(False), torch.no_grad():
                self._derived[key] = derive()
        found: T = self._derived[key]
        return found

    @property
    def num_samples(self) -> int | None:
        """N, the samples this condition describes; None when it holds nothing per sample."""
        for given in (self.domain, self.weights, self.embedding, self.map):
            if given is not None:
                return given.shape[0]
        return None

    @property
    def unknown(self) -> Tensor:
        """Whether each sample is of an unseen domain, (N, 1)."""
        if self.far is not None:
            return self.far[:, None]
        assert self.domain is not None
        return (self.domain < 0)[:, None]

    def select(self, table: Tensor) -> Tensor:
        """The row of every sample: ``table`` (D, C) -> (N, C); rows are mixed by soft weights.

        A sample of an unseen domain gets the mean of all rows.

        Raises:
            ConditionError: Neither domain labels nor weights are given, or a label has no row.
        """
        if self.domain is not None:
            if self.unseen:
                rows = table.index_select(0, self.domain.clamp(min=0))
                return torch.where(self.unknown, table.mean(0), rows)
            try:
                return table.index_select(0, self.domain)
            except IndexError:
                worst = next(v for v in self.domain.tolist() if not 0 <= v < len(table))
                raise ConditionError(out_of_range(worst, len(table))) from None
        if self.weights is not None:
            return weighted_rows(self.weights.to(table.dtype), table)
        raise ConditionError("needs the domain of each sample; pass domain= or weights=")

    def repeat(self, times: int) -> Condition:
        """The condition of ``times`` consecutive rows per sample."""
        if times == 1:
            return self
        given = {
            name: value.repeat_interleave(times, dim=0)
            for name in ("domain", "weights", "embedding", "map", "chance", "far")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **given)


def out_of_range(label: int, num_domains: int) -> str:
    """The message about a label that has no row."""
    return f"domain: label {label} is out of range, expected 0 to {num_domains - 1}"


class MomentsReached(Exception):  # noqa: N818 - a signal to the model, not an error
    """The nearest domain is wanted, and a layer with moments of domains has been reached.

    Args:
        x: The input of that layer, (N, C, *).
        running_mean: (D, C).
        running_var: (D, C).
        eps: What the layer adds to variances.
    """

    def __init__(self, x: Tensor, running_mean: Tensor, running_var: Tensor, eps: float) -> None:
        super().__init__("the nearest domain is wanted")
        self.x, self.running_mean, self.running_var, self.eps = x, running_mean, running_var, eps


def weighted_rows(weights: Tensor, rows: Tensor) -> Tensor:
    """``weights @ rows``, (N, K) and (K, C), in their own dtype under autocast as well.

    Autocast would round moments to bfloat16, and differences of squares are made of them.
    """
    if not torch.is_autocast_enabled(rows.device.type):
        return weights @ rows
    with torch.autocast(rows.device.type, enabled=False):
        return weights @ rows
