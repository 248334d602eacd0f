"""What the norms of one model are conditioned on, and how it reaches them.

All norms of a model hold the same `ConditionSlot`. The model puts the `Condition` of the batch in
flight into it, and takes it out after the forward pass. A plain object is the one way that
survives gradient checkpointing, ``torch.compile`` and DDP: a ContextVar is gone in the recompute,
a buffer is overwritten by DDP's broadcast.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from domainnorm.errors import ConditionError, unknown


@dataclass(frozen=True)
class Condition:
    """Domain labels or soft domain weights of one batch; exactly one of them is given.

    Args:
        domain: Labels, (N,) int64, in ``0..D-1``.
        weights: Soft domain weights, (N, D), rows sum to one.
    """

    domain: Tensor | None = None
    weights: Tensor | None = None

    @property
    def num_samples(self) -> int:
        """N, the samples this condition describes."""
        given = self.domain if self.domain is not None else self.weights
        assert given is not None
        return given.shape[0]

    def select(self, table: Tensor) -> Tensor:
        """The row of every sample: ``table`` (D, C) -> (N, C); rows are mixed by soft weights."""
        if self.domain is not None:
            return table.index_select(0, self.domain)
        assert self.weights is not None
        return self.weights.to(table.dtype) @ table

    def repeat(self, times: int) -> Condition:
        """The condition of ``times`` consecutive rows per sample."""
        if times == 1:
            return self
        if self.domain is not None:
            return Condition(domain=self.domain.repeat_interleave(times))
        assert self.weights is not None
        return Condition(weights=self.weights.repeat_interleave(times, dim=0))


class ConditionSlot:
    """Holds the condition of the batch in flight for all norms of one model."""

    def __init__(self) -> None:
        self.current: Condition | None = None
        self._held: Condition | None = None

    def read(self, path: str, num_rows: int, folded: bool = False) -> Condition:
        """The condition for a layer that sees ``num_rows`` rows.

        Args:
            path: Module path of the layer, for messages.
            num_rows: Size of the first axis of its input.
            folded: Whether each sample reaches the layer as several consecutive rows (tokens or
                windows), in which case its label counts for all of them.

        Raises:
            ConditionError: No condition is set, or it describes another number of samples.
        """
        condition = self.current
        if condition is None:
            raise ConditionError(
                f"{path}: no condition is set; call the DomainModel, not its backbone, or enter "
                "`with model.condition(domain):` first"
            )
        num_samples = condition.num_samples
        if folded and num_samples and num_rows % num_samples == 0:
            return condition.repeat(num_rows // num_samples)
        if num_samples != num_rows:
            raise ConditionError(
                f"{path}: {num_rows} rows for {num_samples} domain labels; this layer does not see "
                "one row per image, convert with `example=`, or exclude it with `where`"
            )
        return condition

    @contextmanager
    def holding(self, condition: Condition) -> Iterator[None]:
        """Set ``condition`` inside the block; the former one comes back after it."""
        former = self.current, self._held
        self.current = self._held = condition
        try:
            yield
        finally:
            self.current, self._held = former

    def arm_backward(self, output: Any, condition: Condition) -> None:
        """Make backward through ``output`` recompute checkpointed blocks under ``condition``.

        Gradient checkpointing runs blocks again during backward, when the slot is empty or holds
        the condition of a later forward pass. The hook fires before the first recompute of this
        graph; when that backward is over, the slot holds what the blocks around it put there.
        """
        if torch.compiler.is_compiling():
            return
        for tensor in _tensors(output):
            if tensor.grad_fn is not None:
                tensor.grad_fn.register_prehook(lambda _: self._arm(condition))

    def _arm(self, condition: Condition) -> None:
        if self.current is not condition:
            self.current = condition
            engine = torch.autograd.Variable._execution_engine  # as DDP and FSDP do
            engine.queue_callback(self._disarm)

    def _disarm(self) -> None:
        self.current = self._held

    def __getstate__(self) -> dict[str, Any]:
        # A copied or pickled model starts without a batch in flight.
        return {"current": None, "_held": None}


def as_condition(
    domain: Tensor | Sequence[str] | str | int | None,
    weights: Tensor | None,
    domain_names: Sequence[str],
    image: Tensor,
) -> Condition:
    """Check what a caller passed and make the condition of this batch.

    Args:
        domain: Labels (N,) integer tensor, a name or label for all samples, or a name per sample.
        weights: Soft weights (N, D), instead of ``domain``.
        domain_names: The model's domains; a label is a position in this list.
        image: The batch, (N, ...); gives N and the device.

    Raises:
        ConditionError: Nothing given for several domains, both given, wrong length, labels that
            are not integers, labels out of range, an unknown name, or weights that are not (N, D)
            with rows that sum to one.
    """
    num_samples, num_domains = image.shape[0], len(domain_names)
    if weights is not None:
        if domain is not None:
            raise ConditionError("condition: both domain and weights were given; give one of them")
        return Condition(
            weights=_checked_weights(weights, (num_samples, num_domains)).to(image.device)
        )
    if domain is None:
        if num_domains != 1:
            raise ConditionError(
                f"domain: missing; this model serves {num_domains} domains "
                f"({', '.join(domain_names)}), pass domain=labels (N,), names or weights="
            )
        domain = 0
    if isinstance(domain, Tensor):
        return Condition(_checked(domain, num_samples, domain_names).to(image.device))
    if isinstance(domain, str) or not isinstance(domain, Iterable):
        labels = [_label(domain, domain_names)] * num_samples
    else:
        labels = [_label(name, domain_names) for name in domain]
    if len(labels) != num_samples:
        raise ConditionError(f"domain: got {len(labels)} names for {num_samples} images")
    return Condition(torch.tensor(labels, dtype=torch.long, device=image.device))


def _label(name: Any, domain_names: Sequence[str]) -> int:
    if isinstance(name, str):
        if name not in domain_names:
            raise ConditionError(unknown("domain", name, domain_names))
        return list(domain_names).index(name)
    try:
        label = operator.index(name)
    except TypeError:
        raise ConditionError(f"domain: got {name!r}, expected a name or an integer label") from None
    if not 0 <= label < len(domain_names):
        raise ConditionError(_out_of_range(label, domain_names))
    return label


def _checked_weights(weights: Tensor, shape: tuple[int, int]) -> Tensor:
    if weights.shape != shape or not weights.is_floating_point():
        raise ConditionError(
            f"weights: got {tuple(weights.shape)} {weights.dtype}, expected a float tensor "
            f"{shape}: one row per image, one column per domain"
        )
    if weights.device.type == "cpu" and not torch.compiler.is_compiling():
        total = weights.detach().float().sum(1)
        if not torch.allclose(total, torch.ones_like(total), rtol=0, atol=0.02):
            worst = float(total[(total - 1).abs().argmax()])
            raise ConditionError(
                f"weights: a row sums to {worst:.3g}, expected 1; divide each row by its sum"
            )
    return weights


def _checked(domain: Tensor, num_samples: int, domain_names: Sequence[str]) -> Tensor:
    if domain.is_floating_point() or domain.is_complex() or domain.dtype == torch.bool:
        raise ConditionError(f"domain: got {domain.dtype} labels, expected integers; use .long()")
    if domain.shape != (num_samples,):
        raise ConditionError(
            f"domain: got shape {tuple(domain.shape)}, expected ({num_samples},): one per image"
        )
    # Reading values costs a synchronization on a GPU, and a graph break under compile; there the
    # gather itself asserts the range.
    if domain.device.type == "cpu" and not torch.compiler.is_compiling() and num_samples:
        low, high = int(domain.min()), int(domain.max())
        for value in (low, high):
            if not 0 <= value < len(domain_names):
                raise ConditionError(_out_of_range(value, domain_names))
    return domain.long()


def _out_of_range(value: int, domain_names: Sequence[str]) -> str:
    listing = ", ".join(f"{label} {name}" for label, name in enumerate(domain_names))
    return f"domain: label {value} is out of range, this model's domains are: {listing}"


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, dict):
        for item in output.values():
            yield from _tensors(item)
    elif isinstance(output, (list, tuple)):
        for item in output:
            yield from _tensors(item)
