"""Mixed and masked images, and the labels of mixed ones."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Mixed(NamedTuple):
    """Mixed images and what is true of them.

    Args:
        image: (N, 3, H, W).
        parts: Labels with their shares of each image: one label (N, H, W) of pixels with the share
            1, or labels (N,) of what each image is made of.
        pasted: Pixels whose label is known because it came from the source, (N, H, W) bool; None
            where there are none.
    """

    image: Tensor
    parts: list[tuple[float, Tensor]]
    pasted: Tensor | None = None


def class_mix(image: Tensor, label: Tensor, source: Tensor, source_label: Tensor) -> Mixed:
    """Paste the pixels of half of the classes of source masks onto target images.

    Image n of the target gets those of source image ``n mod S``: ``⌈c/2⌉`` of the c classes that
    its mask has, drawn for each, with their labels.

    Args:
        image: Target images, (N, 3, H, W).
        label: Their pseudo-labels, (N, H, W), −1 for none.
        source: Source images, (S, 3, H, W).
        source_label: Their masks, (S, H, W), −1 for void, which is never pasted.

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
    return Mixed(mixed, [(1.0, torch.where(pasted, source_label[other], label))], pasted)


def cut_mix(image: Tensor, label: Tensor) -> Mixed:
    """Replace one box of each image, of random size, by that of the image before it.

    Args:
        image: (N, 3, H, W).
        label: Classes (N,), or of pixels (N, H, W).

    Returns:
        One part of pixels; or two of images, what stayed and what was pasted, by their areas.

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
        return Mixed(mixed, [(1.0, torch.where(inside, label.roll(1, 0), label))])
    share = float(inside.float().mean())
    return Mixed(mixed, [(1 - share, label), (share, label.roll(1, 0))])


def mask_patches(image: Tensor, ratio: float, size: int | None = None) -> Tensor:
    """Images of which patches are 0, the mean colour once images are normalized.

    A grid of patches starts at the upper left; those at the other edges may be cut off. Each is
    masked with the probability ``ratio``, in every image apart.

    Args:
        image: Normalized images, (N, C, H, W).
        ratio: In [0, 1].
        size: Side of a patch in pixels, at least 1; an eighth of the shorter side of the image when
            None, at least 1.

    Reference:
        Hoyer et al., MIC, CVPR 2023, arXiv:2212.01322, sec. 3.2.
    """
    height, width = image.shape[-2:]
    size = max(1, min(height, width) // 8) if size is None else size
    grid = (len(image), 1, -(-height // size), -(-width // size))
    stays = torch.rand(grid, device=image.device) >= ratio
    stays = stays.repeat_interleave(size, 2).repeat_interleave(size, 3)[..., :height, :width]
    return torch.where(stays, image, 0.0)
