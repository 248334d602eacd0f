"""How frequent classes are, for losses in which rare ones weigh more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from domainnorm.data.dataset import DomainDataset
from domainnorm.data.parallel import read_all


def class_frequency(dataset: DomainDataset, positions: Sequence[int]) -> Tensor:
    """Share of each class in the images at ``positions``: (K,), float64.

    For masks, which are all read, its share of the labelled pixels of the images in which it
    occurs. 0 for a class that never does.

    Raises:
        DataError: A mask cannot be read; the message names the file.
    """
    num_classes = len(dataset.class_names)
    if dataset.task != "segmentation":
        targets = torch.tensor([dataset.records[at].target for at in positions], dtype=torch.long)
        counts = torch.bincount(targets[targets >= 0], minlength=num_classes).double()
        return counts / counts.sum().clamp(min=1)

    def pixels(position: int) -> Tensor:
        if dataset.records[position].mask is None:
            return torch.zeros(num_classes, dtype=torch.float64)
        # At their own size, whether or not masks at that of the input are kept.
        mask = dataset.original_mask(position)
        counts = np.bincount(mask.ravel(), minlength=num_classes)
        return torch.from_numpy(counts[:num_classes]).double()

    own = torch.zeros(num_classes, dtype=torch.float64)
    around = torch.zeros_like(own)
    for counts in read_all(pixels, positions):
        own += counts
        around += counts.sum() * (counts > 0)
    return own / around.clamp(min=1)
