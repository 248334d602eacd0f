"""Checks of what a loss is given, without waiting for a GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from domainnorm.errors import DomainNormError


def check_logits(where: str, logits: Tensor) -> None:
    """Refuse what are no outputs of classes; ``where`` says who asks."""
    if logits.ndim < 2 or not logits.is_floating_point() or not logits.shape[1]:
        raise DomainNormError(
            f"{where}: logits {_kind(logits)}, expected floats (N, K, ...): samples, then classes"
        )


def check_classes(where: str, logits: Tensor, target: Tensor, ignore_index: int = -1) -> None:
    """Refuse labels (N, ...) that do not fit to logits (N, K, ...): shape, type or range.

    Their values are looked at on a CPU alone; ``ignore_index`` is a label that is no class.
    """
    check_logits(where, logits)
    shape = (len(logits), *logits.shape[2:])
    if target.shape != shape or target.dtype != torch.int64:
        raise DomainNormError(
            f"{where}: target {_kind(target)} for logits {tuple(logits.shape)}, expected labels "
            f"{shape}, torch.int64; one class for each sample or pixel, target.long()"
        )
    if not _is_readable(target):
        return
    low, high = (int(value) for value in target.aminmax())
    count = logits.shape[1]
    if low < 0 or high >= count:  # else there is no need to look for those that do not count
        known = target[target != ignore_index]
        wrong = known[(known < 0) | (known >= count)]
        if len(wrong):
            raise DomainNormError(
                f"{where}: target has label {int(wrong[0])}, expected 0 to {count - 1} for "
                f"{count} classes, or {ignore_index} for what does not count"
            )


def check_answers(where: str, logits: Tensor, target: Tensor) -> None:
    """Refuse answers that do not fit to logits, (N, K) each, or are above 1 (on a CPU)."""
    check_logits(where, logits)
    if target.shape != logits.shape:
        raise DomainNormError(
            f"{where}: target {tuple(target.shape)} for logits {tuple(logits.shape)}, expected "
            "the same shape: an answer for each sample and class"
        )
    if _is_readable(target) and bool((target > 1).any()):
        raise DomainNormError(
            f"{where}: target has {float(target.max()):g}, expected 1 present, 0 absent, -1 unknown"
        )


def _is_readable(target: Tensor) -> bool:
    """Whether reading values costs no synchronization and breaks no graph."""
    return target.device.type == "cpu" and not torch.compiler.is_compiling() and bool(len(target))


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"
