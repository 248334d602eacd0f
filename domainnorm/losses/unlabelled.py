"""Losses that need no label."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from domainnorm.errors import DomainNormError
from domainnorm.losses.checks import check_logits
from domainnorm.losses.precision import in_float32


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


def opinion_entropies(logits: Tensor) -> Tensor:
    """Entropy of each opinion: a distribution over the classes, and "none of them".

    ``b_k = exp(z_k) / (Σ exp(z) + K)`` and ``u = K / (Σ exp(z) + K)``. The gradient reaches the
    direction of the logits z alone, not their length: a model cannot become surer by scaling them.

    Args:
        logits: (N, K) or (N, K, H, W).

    Returns:
        (N,) or (N, H, W), in [0, log(K + 1)].

    Reference:
        Zhang et al., COME: Test-time adaption by Conservatively Minimizing Entropy, ICLR 2025,
        arXiv:2410.10894, and the authors' program.
        Differs: K is the number of classes; the authors' program has 1000 for all data.
    """
    check_logits("opinion_entropies", logits)
    length = torch.linalg.vector_norm(logits, dim=1, keepdim=True)
    fixed = logits / length.clamp(min=torch.finfo(logits.dtype).tiny) * length.detach()
    none = torch.full_like(fixed[:, :1], math.log(logits.shape[1]))
    return entropies(torch.cat([fixed, none], 1))


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


@in_float32
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
    scaled = logits.movedim(1, -1).flatten(0, -2) / temperature
    probability = scaled.softmax(1)
    weight = 1 + torch.exp(-entropies(scaled.detach()))
    weighted = probability * (weight / weight.mean())[:, None]
    confusion = weighted.T @ probability
    rows = confusion.sum(1, keepdim=True)
    confusion = confusion / rows.clamp(min=torch.finfo(rows.dtype).tiny)
    return 1 - confusion.diagonal().mean()


@in_float32
def infomax_loss(logits: Tensor) -> Tensor:
    """Mean entropy of the predictions less the entropy of their mean, in nats.

    ``mean_n H(p_n) - H(mean_n p_n)`` with ``p = softmax(logits)``: minus the mutual information of
    samples and classes. Least where each prediction is sure and all classes are predicted equally
    often. Half precision is computed in float32.

    Args:
        logits: (N, K) or (N, K, H, W); pixels are samples.

    Returns:
        A scalar in [-log K, 0].

    Raises:
        DomainNormError: No classes in the second axis, or no floats.

    Reference:
        Krause et al., Discriminative Clustering by Regularized Information Maximization, NeurIPS
        2010; Liang et al., ICML 2020, arXiv:2002.08546, eq. 3.
    """
    check_logits("infomax_loss", logits)
    rows = logits.movedim(1, -1).flatten(0, -2)
    of_mean: Tensor = torch.special.entr(rows.softmax(1).mean(0)).sum()
    return entropies(rows).mean() - of_mean


@in_float32
def bnm_loss(logits: Tensor, *, fast: bool = False) -> Tensor:
    """Minus the nuclear norm of the predictions of a batch, by the number of its samples B.

    ``-‖P‖_* / B``, the sum of the singular values of ``P = softmax(logits)`` (B, K): least where
    each prediction is sure and all classes are predicted. ``fast`` takes the norms of the columns
    of P, the largest ``min(B, K)``, for the singular values; both are equal where all predictions
    are sure. Half precision is computed in float32.

    Args:
        logits: (N, K) or (N, K, H, W); pixels are samples.
        fast: Without a singular value decomposition.

    Returns:
        A scalar in [-sqrt(min(B, K) / B), 0).

    Raises:
        DomainNormError: No classes in the second axis, or no floats.

    Reference:
        Cui et al., Towards Discriminability and Diversity, CVPR 2020, arXiv:2003.12237;
        ``fast``: Cui et al., Fast Batch Nuclear-norm Maximization and Minimization, 2021,
        arXiv:2107.06154.
        Differs: from the authors' program for adaptation, which divides by min(B, K) instead of by
        the paper's B: 16 times as much at 4 classes and 64 samples.
    """
    check_logits("bnm_loss", logits)
    probability = logits.movedim(1, -1).flatten(0, -2).softmax(1)
    if fast:
        norms: Tensor = torch.linalg.vector_norm(probability, dim=0)
        values = norms.topk(min(probability.shape)).values
    else:
        values = torch.linalg.svdvals(probability)
    return -values.sum() / len(probability)


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
