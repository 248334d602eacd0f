"""Losses that need no label."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from domainnorm.errors import DomainNormError
from domainnorm.losses.checks import check_logits


def entropies(logits: Tensor) -> Tensor:
    """Entropy of each predicted distribution, in nats.

    ``H = -Σ_k p_k log p_k`` with ``p = softmax(logits)``.

    Args:
        logits: (N, K) or (N, K, H, W).

    Returns:
        (N,) or (N, H, W), in [0, log K].

    Raises:
        DomainNormError: No classes in the second axis, or no floats.
    """
    check_logits("entropies", logits)
    log_probability = logits.log_softmax(1)
    return -(log_probability.exp() * log_probability).sum(1)


def entropy_loss(logits: Tensor) -> Tensor:
    """Mean entropy of the predicted distributions, in nats.

    ``H = -Σ_k p_k log p_k`` with ``p = softmax(logits)``, averaged over samples (and pixels).

    Args:
        logits: (N, K) or (N, K, H, W).

    Returns:
        A scalar in [0, log K].

    Raises:
        DomainNormError: No classes in the second axis, or no floats.

    Reference:
        Grandvalet and Bengio, NeurIPS 2004; Wang et al., Tent, ICLR 2021, arXiv:2006.10726, sec. 3.
    """
    check_logits("entropy_loss", logits)
    return entropies(logits).mean()


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


def adversarial_loss(source: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of a domain discriminator, the two domains in equal parts.

    ``(mean_n softplus(-source_n) + mean_m softplus(target_m)) / 2``: source is 1, target 0, however
    many samples each has. ``ln 2`` where the discriminator cannot tell.

    Args:
        source: Logits of samples of source domains, (N, ...), at least one.
        target: Logits of samples of target domains, (M, ...), at least one.

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
    return (functional.softplus(-source).mean() + functional.softplus(target).mean()) / 2


def domain_rows_loss(tables: Iterable[Tensor]) -> Tensor:
    """Mean squared distance of every domain's row to the mean row of its table.

    ``avg over tables of avg_{d,c} (t[d, c] - avg_d t[d, c])²``. Against overfitting of domains with
    few images: their rows stay near what the domains agree on. The mean is not detached, and need
    not be: deviations sum to zero, so its gradient vanishes and a row is pulled by its own
    deviation alone, ``2 (t[d] - avg t) / (D C)`` per table.

    Args:
        tables: A row per domain, (D, C) each; C may differ.

    Returns:
        A scalar, 0 where all domains have the same row.

    Raises:
        DomainNormError: No tables, or one without rows.

    Reference:
        Evgeniou and Pontil, Regularized Multi-Task Learning, KDD 2004, eq. 3 (tasks around their
        mean).
    """
    given = list(tables)
    if not given:
        raise DomainNormError("domain_rows_loss: no tables; the norms have no rows of domains")
    for table in given:
        if not table.numel() or not table.ndim:
            raise DomainNormError(
                f"domain_rows_loss: a table {tuple(table.shape)}, expected (D, C), a row per domain"
            )
    distances = [(table - table.mean(0)).square().mean() for table in given]
    return torch.stack(distances).mean()
