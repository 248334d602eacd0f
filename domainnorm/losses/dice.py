"""Overlap of masks."""

from __future__ import annotations

import torch
from torch import Tensor

from domainnorm.losses.checks import check_classes


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
