"""Collects predictions batch by batch, over processes too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from domainnorm.evaluation.evaluated import EvaluationError
from domainnorm.evaluation.predictions import Predictions


class PredictionStore(Metric):
    """Gathers (logits, target, index) of the batches and returns them as `Predictions`.

    States are lists concatenated over processes. A distributed sampler repeats samples to fill its
    last batch, and each sample counts once: of samples with the same index the first one stays.

    Args:
        kwargs: Keywords of `torchmetrics.Metric`, such as ``compute_on_cpu``.

    Shape:
        ``update``: logits (N, K), target (N,) with −1 for no label, index (N,).

    Raises:
        EvaluationError: On ``update`` with another shape, on ``compute`` without a batch.
    """

    is_differentiable = False
    full_state_update = False
    logits: list[Tensor]
    target: list[Tensor]
    index: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("logits", "target", "index"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, target: Tensor, index: Tensor) -> None:
        """Append one batch: logits (N, K), target (N,), index (N,)."""
        if logits.ndim != 2 or target.shape != logits.shape[:1] or index.shape != target.shape:
            raise EvaluationError(
                f"PredictionStore.update: logits {tuple(logits.shape)}, target "
                f"{tuple(target.shape)}, index {tuple(index.shape)}; expected (N, K), (N,), (N,)"
            )
        self.logits.append(logits.detach().float())
        self.target.append(target.detach().long())
        self.index.append(index.detach().long())

    def compute(self) -> Predictions:
        """All samples seen so far by all processes, once each, sorted by index."""
        if isinstance(self.index, list) and not self.index:
            raise EvaluationError("PredictionStore.compute: no batch came; call update first")
        logits = dim_zero_cat(self.logits).cpu()  # (N, K)
        target, index = dim_zero_cat(self.target).cpu(), dim_zero_cat(self.index).cpu()
        order = torch.argsort(index, stable=True)
        ordered = index[order]
        first = torch.ones_like(ordered, dtype=torch.bool)
        first[1:] = ordered[1:] != ordered[:-1]
        kept = order[first]
        return Predictions(logits[kept].softmax(dim=1), target[kept], index[kept])

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        # torchmetrics squeezes one-element tensors in whatever compute returns and refuses frozen
        # dataclasses, so the result passes its wrapper inside an object it does not look into.
        wrapped = super()._wrap_compute(lambda: _Sealed(compute()))
        return lambda: wrapped().content


class _Sealed:
    def __init__(self, content: Predictions) -> None:
        self.content = content
