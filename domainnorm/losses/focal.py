"""Cross-entropy that turns to what is hard."""

from __future__ import annotations

import torch
from torch import Tensor

from domainnorm.errors import DomainNormError
from domainnorm.losses.checks import check_classes


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
