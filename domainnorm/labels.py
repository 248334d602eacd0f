"""What a caller says of a batch, checked and made a condition."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from domainnorm.condition import Condition
from domainnorm.errors import ConditionError, unknown

UNSEEN = -1


def as_condition(
    domain: Tensor | Sequence[str] | str | int | None,
    weights: Tensor | None,
    domain_names: Sequence[str],
    image: Tensor,
    *,
    unconditional: bool = False,
    unseen: str = "",
    zeros: bool = False,
    **further: Any,
) -> Condition:
    """Check what a caller passed and make the condition of this batch.

    Args:
        domain: Labels (N,) integer tensor, a name or label for all samples, or a name per sample.
        weights: Soft weights (N, D), instead of ``domain``.
        domain_names: The model's domains; a label is a position in this list.
        image: The batch, (N, ...); gives N and the device.
        unconditional: Whether the model can do without the domain (`DomainModel.unconditional`).
        unseen: What is done about samples of unseen domains, see `Condition`: those of an unknown
            name, those labelled −1, and all where nothing is given; empty where they are errors.
        zeros: Whether a row of weights may be all zeros, of an image near no known domain.
        **further: Other fields of `Condition`; with one of them, ``domain`` may be left out.

    Raises:
        ConditionError: Nothing given for several domains, both given, wrong length, labels that
            are not integers, labels out of range, an unknown name, weights that are not (N, D)
            with rows that sum to one, or an embedding or map of another batch size.
    """
    given = {name: value for name, value in further.items() if value is not None}
    for name in ("embedding", "map"):
        if name in given:
            given[name] = _checked_rows(name, given[name], image)
    if domain is None and weights is None and len(domain_names) > 1:
        if unconditional and not unseen:
            unseen = "mean"  # what norms without a row for such samples do
        if unseen:
            domain = torch.full((image.shape[0],), UNSEEN, device=image.device)
        elif given:
            return Condition(**given)
    if weights is not None:
        if domain is not None:
            raise ConditionError("condition: both domain and weights were given; give one of them")
        shape = image.shape[0], len(domain_names)
        return Condition(weights=_checked_weights(weights, shape, zeros).to(image.device), **given)
    condition = _domain_condition(domain, domain_names, image, bool(unseen))
    if unseen and condition.domain is not None and _has_unseen(condition.domain):
        given["unseen"] = unseen
    return replace(condition, **given)


def _has_unseen(domain: Tensor) -> bool:
    """Whether there may be samples of unseen domains, without a synchronization to find out."""
    if domain.device.type != "cpu" or torch.compiler.is_compiling():
        return True
    return bool((domain == UNSEEN).any())


def _checked_rows(name: str, value: Tensor, image: Tensor) -> Tensor:
    axes = {"embedding": 2, "map": image.ndim}[name]
    if value.shape[:1] != image.shape[:1] or value.ndim != axes:
        raise ConditionError(
            f"{name}: got shape {tuple(value.shape)}, expected {axes} axes and the "
            f"{image.shape[0]} images of the batch in the first"
        )
    return value.to(image.device)


def _domain_condition(
    domain: Tensor | Sequence[str] | str | int | None,
    domain_names: Sequence[str],
    image: Tensor,
    unseen: bool,
) -> Condition:
    num_samples, num_domains = image.shape[0], len(domain_names)
    if domain is None:
        if num_domains != 1:
            raise ConditionError(
                f"domain: missing; this model serves {num_domains} domains "
                f"({', '.join(domain_names)}), pass domain=labels (N,), names or weights=, "
                "or say what becomes of unseen ones, e.g. model.unseen = 'mean'"
            )
        domain = 0
    if isinstance(domain, Tensor):
        checked = _checked(domain, num_samples, domain_names, unseen)
        return Condition(checked.to(image.device))
    if isinstance(domain, str) or not isinstance(domain, Iterable):
        labels = [_label(domain, domain_names, unseen)] * num_samples
    else:
        labels = [_label(name, domain_names, unseen) for name in domain]
    if len(labels) != num_samples:
        raise ConditionError(f"domain: got {len(labels)} names for {num_samples} images")
    return Condition(torch.tensor(labels, dtype=torch.long, device=image.device))


def _label(name: Any, domain_names: Sequence[str], unseen: bool) -> int:
    if isinstance(name, str):
        if name not in domain_names:
            if unseen:
                return UNSEEN
            raise ConditionError(unknown("domain", name, domain_names))
        return list(domain_names).index(name)
    try:
        if isinstance(name, bool):
            raise TypeError
        label = operator.index(name)
    except TypeError:
        raise ConditionError(f"domain: got {name!r}, expected a name or an integer label") from None
    if not (0 <= label < len(domain_names) or (unseen and label == UNSEEN)):
        raise ConditionError(_out_of_range(label, domain_names))
    return label


def _checked_weights(weights: Tensor, shape: tuple[int, int], zeros: bool) -> Tensor:
    if not isinstance(weights, Tensor):
        raise ConditionError(
            f"weights: got {type(weights).__name__}, expected a float tensor {shape}; "
            "torch.as_tensor makes one"
        )
    if weights.shape != shape or not weights.is_floating_point():
        raise ConditionError(
            f"weights: got {tuple(weights.shape)} {weights.dtype}, expected a float tensor "
            f"{shape}: one row per image, one column per domain"
        )
    if weights.device.type == "cpu" and not torch.compiler.is_compiling():
        total = weights.detach().float().sum(1)
        if bool((weights < 0).any()):
            raise ConditionError(
                f"weights: got {float(weights.min()):.3g}, expected shares of at least 0"
            )
        apart = (total - 1).abs()
        apart = apart.masked_fill(total == 0, 0) if zeros else apart
        if not bool((apart <= 0.02).all()):
            worst = float(total[apart.argmax()])
            raise ConditionError(
                f"weights: a row sums to {worst:.3g}, expected 1; divide each row by its sum"
            )
    return weights


def _checked(domain: Tensor, num_samples: int, domain_names: Sequence[str], unseen: bool) -> Tensor:
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
            if not (UNSEEN if unseen else 0) <= value < len(domain_names):
                raise ConditionError(_out_of_range(value, domain_names))
    return domain.long()


def _out_of_range(value: int, domain_names: Sequence[str]) -> str:
    listing = ", ".join(f"{label} {name}" for label, name in enumerate(domain_names))
    return f"domain: label {value} is out of range, this model's domains are: {listing}"
