"""Losses between samples of two domains, or two classifiers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.errors import DomainNormError
from domainnorm.losses.checks import check_logits
from domainnorm.losses.precision import in_float32


def reversed_gradient(x: Tensor, weight: float) -> Tensor:
    """``x``, whose gradient is ``-weight`` times that of what follows.

    Reference:
        Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 2016, arXiv:1505.07818,
        eq. 13 to 15.
    """
    reversed_: Tensor = _Reversed.apply(x, weight)
    return reversed_


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradient, None


@in_float32
def adversarial_loss(
    source: Tensor,
    target: Tensor,
    source_weight: Tensor | None = None,
    target_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy of a domain discriminator, the two domains in equal parts.

    ``(avg_n softplus(-source_n) + avg_m softplus(target_m)) / 2``: source is 1, target 0, however
    many samples each has, ``avg`` weighted by the weights of the domain. ``ln 2`` where the
    discriminator cannot tell. Half precision is computed in float32.

    Args:
        source: Logits of samples of source domains, (N, ...), at least one.
        target: Logits of samples of target domains, (M, ...), at least one.
        source_weight: Of each logit, (N, ...), above 0; None for equal ones.
        target_weight: Likewise, (M, ...).

    Raises:
        DomainNormError: One of them is empty.

    Reference:
        Ganin et al., JMLR 2016, arXiv:1505.07818, eq. 9.
    """
    if not source.numel() or not target.numel():
        raise DomainNormError(
            f"adversarial_loss: {source.numel()} source and {target.numel()} target logits, "
            "expected at least one of each"
        )
    losses = F.softplus(-source), F.softplus(target)
    weights = source_weight, target_weight
    parts = [
        loss.mean() if weight is None else (weight * loss).sum() / weight.sum()
        for loss, weight in zip(losses, weights, strict=True)
    ]
    return (parts[0] + parts[1]) / 2


@in_float32
def coral_loss(source: Tensor, target: Tensor) -> Tensor:
    """Squared distance of the covariances of two domains.

    ``‖C_s - C_t‖_F² / (4 F²)`` with the unbiased covariances (F, F). Means do not count. Half
    precision is computed in float32.

    Args:
        source: (N, F), at least two samples.
        target: (M, F), likewise.

    Returns:
        A scalar >= 0.

    Raises:
        DomainNormError: Features that do not fit, or fewer than two samples of a domain.

    Reference:
        Sun and Saenko, Deep CORAL, ECCV Workshops 2016, arXiv:1607.01719, eq. 1 to 3.
        Differs: from the Transfer-Learning-Library, whose loss is 4 times as large, and has the
        mean squared distance of the means beside it.
    """
    _check_two("coral_loss", source, target)
    distance = _covariance(source) - _covariance(target)
    return distance.square().mean() / 4


def _covariance(samples: Tensor) -> Tensor:
    centred = samples - samples.mean(0)
    return centred.T @ centred / (len(samples) - 1)


@in_float32
def mmd_loss(source: Tensor, target: Tensor, num_kernels: int = 5) -> Tensor:
    """Squared maximum mean discrepancy of two domains under several Gaussian kernels, unbiased.

    ``avg_{i≠j} k(s_i, s_j) + avg_{i≠j} k(t_i, t_j) - 2 avg_{i,j} k(s_i, t_j)``, with k the mean of
    ``exp(-‖x - y‖² / (2^v g))`` over U exponents v around 0, one apart (-2 to 2 for 5). g is
    the mean of ‖x - y‖² over all pairs of samples, each with itself included; a constant. The
    estimate of equal domains is 0 in the mean, and below 0 at times. Half precision is computed
    in float32. Memory: U matrices of (N + M)².

    Args:
        source: (N, F), at least two samples.
        target: (M, F), likewise; M may differ from N.
        num_kernels: U, at least 1.

    Returns:
        A scalar < 2.

    Raises:
        DomainNormError: Features that do not fit, fewer than two samples of a domain, no kernel.

    Reference:
        Gretton et al., A Kernel Two-Sample Test, JMLR 2012, eq. 3; Long et al., Learning
        Transferable Features with Deep Adaptation Networks, ICML 2015, arXiv:1502.02791, sec. 3.
        Differs: the estimate of all pairs instead of that of linear cost; equal weights of the
        kernels instead of learned ones; the mean of squared distances instead of the median, and
        fewer kernels, both as in the Transfer-Learning-Library, which sums the kernels
        and adds the constant 2 / (N - 1).
    """
    _check_two("mmd_loss", source, target)
    if num_kernels < 1:
        raise DomainNormError(f"mmd_loss: num_kernels {num_kernels}, expected 1 or more")
    samples = torch.cat([source, target])
    samples = samples - samples.mean(0).detach()  # else what is subtracted is large
    square = samples.square().sum(1)
    distance = (square[:, None] + square - 2 * samples @ samples.T).clamp(min=0)
    width = distance.detach().mean().clamp(min=torch.finfo(distance.dtype).tiny)
    powers = [2.0 ** (number - (num_kernels - 1) / 2) for number in range(num_kernels)]
    kernel = sum(
        (torch.exp(-distance / (power * width)) for power in powers), torch.zeros_like(distance)
    )
    kernel = (kernel / num_kernels).fill_diagonal_(0)
    n, m = len(source), len(target)
    within = kernel[:n, :n].sum() / (n * (n - 1)) + kernel[n:, n:].sum() / (m * (m - 1))
    return within - 2 * kernel[:n, n:].mean()


def _check_two(where: str, source: Tensor, target: Tensor) -> None:
    fits = source.ndim == target.ndim == 2 and source.shape[1:] == target.shape[1:]
    if not fits or min(len(source), len(target)) < 2:
        raise DomainNormError(
            f"{where}: source {tuple(source.shape)} and target {tuple(target.shape)}, expected "
            "(N, F) and (M, F) with at least two samples each; take larger batches"
        )


@in_float32
def discrepancy_loss(first: Tensor, second: Tensor) -> Tensor:
    """Mean absolute difference of the probabilities of two classifiers.

    ``avg_{n,k} |p[n,k] - q[n,k]|`` with p and q the softmax of each. Half precision is computed in
    float32.

    Args:
        first: Logits (N, K) or (N, K, H, W).
        second: Likewise.

    Returns:
        A scalar in [0, 2 / K].

    Raises:
        DomainNormError: No classes in the second axis, no floats, or shapes that differ.

    Reference:
        Saito et al., Maximum Classifier Discrepancy, CVPR 2018, arXiv:1712.02560, sec. 3.
    """
    check_logits("discrepancy_loss", first)
    if first.shape != second.shape:
        raise DomainNormError(
            f"discrepancy_loss: logits {tuple(first.shape)} and {tuple(second.shape)}, expected "
            "the same shape"
        )
    return (first.softmax(1) - second.softmax(1)).abs().mean()
