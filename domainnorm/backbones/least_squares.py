"""The affine map of each channel that is nearest in the mean square, from sums over samples."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

# Scale and shift, of a shape that broadcasts to (G, C) each.
Pair: TypeAlias = tuple[Tensor, Tensor]

_SAMPLES = 16  # widened to float64 at a time
_CONSTANT = 1e-12  # of the mean square: what rounding leaves of the variance of a constant


class LeastSquares:
    """Sums of z, y, z², zy and y² over the values of each group and channel, in float64.

    Args:
        num_groups: G.
        num_features: C.
        device: Where the sums are.
    """

    def __init__(self, num_groups: int, num_features: int, device: torch.device) -> None:
        shape = (6, num_groups, num_features)
        self._sums = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(self, z: Tensor, y: Tensor, group: Tensor) -> None:
        """Take samples in.

        Args:
            z: What is mapped, (N, C, *).
            y: What it is to become, (N, C, *).
            group: Of each sample, (N,), in ``0..G-1``.
        """
        for start in range(0, len(z), _SAMPLES):
            part = slice(start, start + _SAMPLES)
            wide = z[part].double().reshape(len(z[part]), z.shape[1], -1)  # (N, C, 1) of vectors
            other = y[part].double().reshape(wide.shape)
            values = torch.full_like(wide[..., 0], wide.shape[2])
            sums = (wide, other, wide * wide, wide * other, other * other)
            own = torch.stack([values, *(product.sum(2) for product in sums)])
            self._sums.index_add_(1, group[part], own)

    def solve(self, otherwise: Pair) -> tuple[Pair, Pair]:
        """``scale = cov(z, y) / var(z)`` and ``shift = avg(y) - scale · avg(z)``.

        Args:
            otherwise: Its scale is taken for channels in which z is constant.

        Returns:
            The pairs of the groups, (G, C) each, and the pair of all samples together, (1, C) each;
            an empty group has that of all.
        """
        pooled = _solve(self._sums.sum(1, keepdim=True), otherwise)
        seen = self._sums[0] > 0
        own = _solve(self._sums, otherwise)
        rows = [torch.where(seen, one, both) for one, both in zip(own, pooled, strict=True)]
        return (rows[0], rows[1]), pooled

    def missed(self, pair: Pair) -> float:
        """``Σ (y - scale · z - shift)² / Σ (y - avg y)²``, the average that of all samples."""
        scale, shift = (value.double().to(self._sums.device) for value in pair)
        count, z, y, var_z, cov, var_y = _central(self._sums)
        apart = var_y - 2 * scale * cov + scale.square() * var_z
        rest = count * (apart + (y - scale * z - shift).square())
        total = _central(self._sums.sum(1))
        whole = float((total[0] * total[5]).sum())
        return float(rest.sum().clamp(min=0)) / whole if whole > 0 else 0.0


def _central(sums: Tensor) -> tuple[Tensor, ...]:
    """Count, means of z and y, var(z), cov(z, y), var(y)."""
    count = sums[0]
    z, y, zz, zy, yy = (sums[1:] / count.clamp(min=1)).unbind()
    var_z, var_y = zz - z * z, yy - y * y
    # Of a constant, rounding leaves more or less than zero.
    var_z = torch.where(var_z > _CONSTANT * zz, var_z, 0)
    return count, z, y, var_z, zy - z * y, var_y.clamp(min=0)


def _solve(sums: Tensor, otherwise: Pair) -> Pair:
    _, z, y, var_z, cov, _ = _central(sums)
    scale = torch.where(var_z > 0, cov / var_z, otherwise[0].to(cov))
    return scale, y - scale * z
