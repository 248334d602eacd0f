"""Moments for samples of unseen domains that are taken from their own batch."""

from __future__ import annotations

import torch

from domainnorm.condition import Condition
from domainnorm.norms.kernels.mixing import Moments


def with_batch_moments(given: Moments, own: Moments, size: int, condition: Condition) -> Moments:
    """Moments of each sample, those of unseen domains pooled over all of them in the batch.

    ``mean = avg m[n]``, ``var = avg (v[n] + (m[n] - mean)²)`` over the samples n of unseen domains.
    If they have a single value per channel in all, whose variance would be zero, ``given`` stays.

    Args:
        given: Moments of each sample, (N, C), or one for all, (1, C).
        own: Moments of each sample over its own pixels, (N, C).
        size: Pixels per sample.
        condition: Tells the samples of unseen domains.

    Returns:
        (N, C) each.
    """
    unknown = condition.unknown
    count = unknown.sum()
    share = unknown.to(own.mean.dtype) / count.clamp(min=1)
    mean = (share * own.mean).sum(0)
    var = (share * (own.var + (own.mean - mean).square())).sum(0)
    replaced = unknown & (count * size > 1)
    return Moments(
        torch.where(replaced, mean, given.mean.to(mean.dtype)),
        torch.where(replaced, var, given.var.to(var.dtype)),
    )
