"""Losses of outputs whose truth is known."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from domainnorm.errors import DomainNormError
from domainnorm.losses.checks import check_answers, check_classes


def focal_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    ignore_index: int = -1,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy, each term scaled down the surer the network already is.

    ``L = -Σ_i w[y_i] (1 - p[i,y_i])^γ log p[i,y_i] / Σ_i w[y_i]`` with ``p = softmax(logits)`` over
    all samples, or pixels, that count; γ = 0 is `torch.nn.functional.cross_entropy`.

    Half precision is computed in float32.

    Args:
        logits: (N, K, ...), such as (N, K) or (N, K, H, W).
        target: Class of each sample or pixel (N, ...), int64.
        gamma: Focus γ, >= 0.
        ignore_index: Target of what does not count.
        class_weight: Weight w of each class (K,), the paper's α; None for 1.

    Returns:
        A scalar >= 0; zero, with a gradient of zero, when nothing counts.

    Raises:
        DomainNormError: Shapes or types that do not fit to each other, a gamma below 0; on a CPU a
            label out of range.

    Reference:
        Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, arXiv:1708.02002, eq. 4 and 5.
        Differs: one softmax over K classes, where the paper has a sigmoid for each (and
        segmentation_models_pytorch's FocalLoss too); divided by what counts instead of by anchors.
    """
    check_classes("focal_loss", logits, target, ignore_index)
    if gamma < 0:
        raise DomainNormError(f"focal_loss: gamma {gamma}, expected 0 or more")
    if class_weight is not None and class_weight.shape != logits.shape[1:2]:
        raise DomainNormError(
            f"focal_loss: class_weight {tuple(class_weight.shape)}, expected "
            f"({logits.shape[1]},), a weight for each class"
        )
    known = target != ignore_index
    if not bool(known.any()):
        return logits.sum() * 0.0
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    label = target.masked_fill(~known, 0)
    log_probability = wide.log_softmax(1).gather(1, label.unsqueeze(1)).squeeze(1)[known]
    # Without the bound, γ below 1 has an infinite slope where a probability rounds to 1.
    doubt = -log_probability.expm1().clamp(max=-torch.finfo(wide.dtype).eps)
    terms = -(doubt**gamma) * log_probability
    if class_weight is None:
        return terms.mean()
    weight = class_weight.to(wide)[target[known]]
    if not bool(weight.any()):
        return logits.sum() * 0.0
    return (weight * terms).sum() / weight.sum()


def dice_loss(logits: Tensor, target: Tensor, ignore_index: int = -1) -> Tensor:
    """One minus the soft Dice coefficient, averaged over the classes that the batch contains.

    ``L = 1 - avg_k 2 Σ_i p[i,k] g[i,k] / (Σ_i p[i,k] + Σ_i g[i,k])`` with ``p = softmax(logits)``,
    g the one-hot target and i all known pixels of the batch, as if its images were one: a class
    that is rare in single images still has a stable value. Classes without a true pixel are left
    out of the average; other classes' terms push their probability down already.

    Half precision is computed in float32.

    Args:
        logits: (N, K, ...), such as (N, K, H, W).
        target: Class of each pixel (N, ...), int64.
        ignore_index: Target of pixels that do not count.

    Returns:
        A scalar in [0, 1]; zero, with a gradient of zero, when no pixel counts.

    Raises:
        DomainNormError: Shapes or types that do not fit to each other; on a CPU a label out of
            range.

    Reference:
        Milletari et al., V-Net, 3DV 2016, arXiv:1606.04797, sec. 3.
        Differs: sums instead of sums of squares in the denominator, as in nnU-Net, MONAI and
        segmentation_models_pytorch (which divides by K even where classes are absent).
    """
    check_classes("dice_loss", logits, target, ignore_index)
    known = target != ignore_index
    if not bool(known.any()):
        return logits.sum() * 0.0
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    probability = wide.softmax(1).movedim(1, -1)[known]  # (pixels, K)
    label = target[known]
    own = probability.gather(1, label[:, None]).squeeze(1)
    overlap = probability.new_zeros(logits.shape[1]).index_add(0, label, own)
    count = torch.bincount(label, minlength=logits.shape[1])
    dice = 2 * overlap / (probability.sum(0) + count)
    return (1 - dice[count > 0]).mean()


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
