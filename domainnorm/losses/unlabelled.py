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


def confusion_loss(logits: Tensor, temperature: float = 2.5) -> Tensor:
    """Minimum class confusion: how often two classes are predicted together.

    With ``p = softmax(logits / temperature)``, ``w[n] ∝ 1 + exp(-H(p[n]))`` (of mean 1, constant)
    and ``C = Σ_n w[n] p[n] p[n]ᵀ``, whose rows are divided by their sums: the mean over classes of
    what is off the diagonal of C. Half precision is computed in float32.

    Args:
        logits: (N, K) or (N, K, H, W); pixels are samples.
        temperature: > 0.

    Returns:
        A scalar in [0, 1 - 1/K].

    Raises:
        DomainNormError: No classes in the second axis, no floats, or a temperature of 0 or less.

    Reference:
        Jin et al., Minimum Class Confusion, ECCV 2020, arXiv:1912.03699, eq. 2 to 6.
    """
    check_logits("confusion_loss", logits)
    if temperature <= 0:
        raise DomainNormError(f"confusion_loss: temperature {temperature}, expected more than 0")
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32)).movedim(1, -1)
    scaled = wide.flatten(0, -2) / temperature
    probability = scaled.softmax(1)
    weight = 1 + torch.exp(-entropies(scaled.detach()))
    weighted = probability * (weight / weight.mean())[:, None]
    confusion = weighted.T @ probability
    confusion = confusion / confusion.sum(1, keepdim=True)
    return 1 - confusion.diagonal().mean()


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
