"""Mixed images and their labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

Mixed = tuple[Tensor, list[tuple[float, Tensor]]]


def class_mix(image: Tensor, label: Tensor, source: Tensor, source_label: Tensor) -> Mixed:
    """Paste the pixels of half of the classes of source masks onto target images.

    Image n of the target gets those of source image ``n mod S``: ``⌈c/2⌉`` of the c classes that
    its mask has, drawn for each, with their labels.

    Args:
        image: Target images, (N, 3, H, W).
        label: Their pseudo-labels, (N, H, W), −1 for none.
        source: Source images, (S, 3, H, W).
        source_label: Their masks, (S, H, W), −1 for void, which is never pasted.

    Returns:
        Mixed images, and one label (N, H, W) with the share 1.

    Reference:
        Olsson et al., ClassMix, WACV 2021, arXiv:2007.07936; Tranheden et al., DACS, WACV 2021,
        arXiv:2007.08702, sec. 3.2.
    """
    other = torch.arange(len(image), device=image.device) % len(source)
    pasted = torch.zeros_like(label, dtype=torch.bool)
    for position, of in enumerate(other.tolist()):
        present = torch.unique(source_label[of])
        present = present[present >= 0]
        order = torch.randperm(len(present), device=present.device)
        pasted[position] = torch.isin(source_label[of], present[order[: (len(present) + 1) // 2]])
    mixed = torch.where(pasted[:, None], source[other], image)
    return mixed, [(1.0, torch.where(pasted, source_label[other], label))]


def cut_mix(image: Tensor, label: Tensor) -> Mixed:
    """Replace one box of each image, of random size, by that of the image before it.

    Args:
        image: (N, 3, H, W).
        label: Classes (N,), or of pixels (N, H, W).

    Returns:
        Mixed images, and labels with their shares: one of pixels, or two of images, those of the
        images and those of what was pasted, by their areas.

    Reference:
        Yun et al., CutMix, ICCV 2019, arXiv:1905.04899, eq. 1 and 2.
    """
    height, width = image.shape[-2:]
    side = math.sqrt(1 - float(torch.rand(())))  # the share that stays is uniform
    box = [max(1, round(side * size)) for size in (height, width)]
    top, left = (
        int(torch.randint(size - part + 1, ()))
        for size, part in zip((height, width), box, strict=True)
    )
    inside = torch.zeros(height, width, dtype=torch.bool, device=image.device)
    inside[top : top + box[0], left : left + box[1]] = True
    mixed = torch.where(inside, image.roll(1, 0), image)
    if label.ndim > 1:
        return mixed, [(1.0, torch.where(inside, label.roll(1, 0), label))]
    share = float(inside.float().mean())
    return mixed, [(1 - share, label), (share, label.roll(1, 0))]
