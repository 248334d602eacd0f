"""Statistics: what they promise, and the running moments that batch and domain statistics share."""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn

from domainnorm.condition import Condition
from domainnorm.errors import DomainNormError
from domainnorm.norms.kernels.batch_norm import Running
from domainnorm.norms.kernels.collectives import several_ranks


class Statistics(nn.Module, abc.ABC):
    """Which moments normalize a sample.

    Subclasses are called as ``Statistics(num_features, num_domains, **options)``; ``path`` is the
    module path of the layer they are in. ``tokens``: channels are the last axis of ``x``, not the
    second. ``takes_rows``: may be called with a pair per domain and ``rows=True``, which spares the
    arithmetic per sample.
    """

    path: str = ""
    tokens: bool = False
    takes_rows: bool = False

    @property
    def keeps_function(self) -> bool:
        """Whether evaluation equals the batch norm whose moments were given to `start`."""
        return False

    @property
    def tracks_domains(self) -> bool:
        """Whether there are running moments with a row per domain."""
        return False

    @abc.abstractmethod
    def forward(self, x: Tensor, scale: Tensor, shift: Tensor, condition: Condition) -> Tensor:
        """Normalize ``x`` (N, C, *), then apply ``scale`` and ``shift``, (N or 1, C) each."""

    def start(self, mean: Tensor, var: Tensor, batches: Tensor | None) -> None:
        """Take over running moments (C,) of the layer that is replaced; nothing where none are."""


class RunningMoments(Statistics):
    """Normalizes with the moments of groups of samples, and keeps running ones for evaluation.

    Training: moments of the group in this batch; ``running += momentum · (batch - running)`` for
    the groups that are present, with the unbiased variance, as in PyTorch. A group that holds a
    single value per channel has no variance: its running moments normalize it and stay as they
    are. When several ranks train together, a group's moments are those of its samples on all of
    them. Evaluation: running moments.

    Args:
        num_features: C.
        num_rows: Rows of running moments, R.
        momentum: Weight of the new batch in [0, 1]; None for the cumulative average.
        eps: Added to the variance.
        stride: Moments of a batch are those of every ``stride``-th pixel along each axis, ≥ 1.
        sync: Whether moments go on over ranks; every rank must then run every layer equally often.
        frozen: Whether the running moments normalize in training too, and stay as they are.

    Shape:
        ``running_mean``, ``running_var``: (R, C). ``num_batches_tracked``: (R,), batches each row
        has seen.
    """

    takes_rows = True
    row_names = ("running_mean", "running_var", "num_batches_tracked")
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        num_rows: int,
        *,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        stride: int = 1,
        sync: bool = True,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.eps = eps
        self.stride = checked_stride(stride)
        self.sync = sync
        self.frozen = frozen
        self.register_buffer("running_mean", torch.zeros(num_rows, num_features))
        self.register_buffer("running_var", torch.ones(num_rows, num_features))
        self.register_buffer("num_batches_tracked", torch.zeros(num_rows, dtype=torch.long))

    @property
    def keeps_function(self) -> bool:
        """Evaluation with the moments of the replaced layer is that layer."""
        return True

    @torch.no_grad()
    def start(self, mean: Tensor, var: Tensor, batches: Tensor | None) -> None:
        """Every row becomes ``mean`` and ``var`` (C,), having seen ``batches`` of them."""
        self.running_mean.copy_(mean.expand_as(self.running_mean))
        self.running_var.copy_(var.expand_as(self.running_var))
        if batches is not None:
            self.num_batches_tracked.copy_(batches.expand_as(self.num_batches_tracked))

    @property
    def synchronizes(self) -> bool:
        """Whether moments of this step go on over several ranks."""
        return self.sync and several_ranks()

    @property
    def running(self) -> Running:
        """The moments, as the kernels take and move them."""
        moments = self.running_mean, self.running_var, self.num_batches_tracked
        return Running(*moments, self.momentum, self.eps, self.stride, self.synchronizes)

    def extra_repr(self) -> str:
        """Shapes and constants, for ``print(model)``."""
        rows, features = self.running_mean.shape
        return f"{features}, rows={rows}, momentum={self.momentum}, eps={self.eps}"


def checked_stride(stride: int) -> int:
    """``stride``, at least 1.

    Raises:
        DomainNormError: It is smaller.
    """
    if stride < 1:
        raise DomainNormError(f"stride: got {stride}, expected 1 (every pixel) or more")
    return stride
