"""Findings that are present, absent or unknown."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.losses.checks import check_answers


def masked_bce_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy of the answers that are known.

    ``L = -avg_{n,k: t[n,k] >= 0} (t log σ(x) + (1 - t) log σ(-x))``. Each known answer weighs the
    same, so a finding that is often unknown weighs less.

    Half precision is computed in float32.

    Args:
        logits: (N, K).
        target: 1 present, 0 absent, −1 unknown, (N, K).

    Returns:
        A scalar >= 0; zero, with a gradient of zero, when nothing is known.

    Raises:
        DomainNormError: Shapes that differ; on a CPU an answer above 1.
    """
    check_answers("masked_bce_loss", logits, target)
    known = target >= 0
    if not bool(known.any()):
        return logits.sum() * 0.0
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.binary_cross_entropy_with_logits(wide[known], target[known].to(wide.dtype))
