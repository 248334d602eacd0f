"""How much the images of a dataset hold of each class; masks are read once for all who ask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainnorm.data.dataset import DomainDataset
from domainnorm.data.images import read_all

Counts = NDArray[np.int64]


class ClassCounts:
    """Counts of each class in images, read when they are first asked for.

    Args:
        dataset: With the labels that are counted; the caller asks for no images but those whose
            labels it may see.
    """

    def __init__(self, dataset: DomainDataset) -> None:
        self._dataset = dataset
        self._known: dict[int, Counts] = {}

    def of(self, positions: Sequence[int]) -> Counts:
        """Pixels of each class in the masks at ``positions``, or 1 for its class: (N, K).

        Raises:
            DataError: A mask cannot be read; the message names the file.
        """
        unread = [position for position in positions if position not in self._known]
        if self._dataset.task == "segmentation":
            self._known.update(zip(unread, read_all(self._pixels, unread), strict=True))
        else:
            self._known.update(zip(unread, map(self._image, unread), strict=True))
        found = [self._known[position] for position in positions]
        return np.stack([np.zeros(len(self._dataset.class_names), np.int64), *found])[1:]

    def frequency(self, positions: Sequence[int]) -> Tensor:
        """Share of each class in the images at ``positions``: (K,), float64.

        For masks its share of the labelled pixels of the images in which it occurs. 0 for a class
        that never does.

        Raises:
            DataError: See `of`.
        """
        counts = self.of(positions)
        around = counts.sum(1, keepdims=True)
        if self._dataset.task == "segmentation":
            around = around * (counts > 0)
        shares = counts.sum(0) / np.maximum(around.sum(0), 1)
        return torch.from_numpy(shares)

    def _image(self, position: int) -> Counts:
        return self._zeros_but(np.array([self._dataset.records[position].target]))

    def _pixels(self, position: int) -> Counts:
        if self._dataset.records[position].mask is None:
            return self._zeros_but(np.array([], np.int64))
        # At their own size, whether or not masks at that of the input are kept.
        return self._zeros_but(self._dataset.original_mask(position).ravel())

    def _zeros_but(self, classes: NDArray[np.integer]) -> Counts:
        num_classes = len(self._dataset.class_names)
        known = classes[(classes >= 0) & (classes < num_classes)]
        return np.bincount(known, minlength=num_classes).astype(np.int64)
