"""Entropy of predictions."""

from __future__ import annotations

from torch import Tensor

from domainnorm.losses.checks import check_logits


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
    log_probability = logits.log_softmax(1)
    return -(log_probability.exp() * log_probability).sum(1).mean()
