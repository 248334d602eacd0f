"""What a loader reads: chosen images of a dataset, with labels only where they may be seen."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from domainnorm.data.dataset import DomainDataset
from domainnorm.data.sampler import Draw

PipelineFunction = Callable[[NDArray[np.uint8], int], Tensor]


class DomainView(Dataset[dict[str, Tensor]]):
    """Some images of a dataset as ``{"image", "target", "domain", "index"}``.

    Targets of domains that are not ``labelled`` are -1, and the view keeps no other copy of them:
    it holds the dataset without their labels.

    Args:
        dataset: The images.
        positions: Indices into ``dataset.records``, in the order of the view.
        domain_names: Domains of the transfer; a domain label is a position in this list.
        labelled: Domains whose labels may be seen.
        pipelines: For every domain of the view, what turns an image and a seed into a tensor.

    Shape:
        - image: (3, H, W), float32
        - target: (), int64, ``0 .. K - 1`` or -1
        - domain: (), int64, ``0 .. D - 1``
        - index: (), int64, position in ``dataset.records``
    """

    def __init__(
        self,
        dataset: DomainDataset,
        positions: Sequence[int],
        *,
        domain_names: Sequence[str],
        labelled: Collection[str],
        pipelines: Mapping[str, PipelineFunction],
    ) -> None:
        hidden = [name for name in dataset.domain_names if name not in labelled]
        self.dataset = dataset.without_labels(hidden)
        self.positions = list(positions)
        records = [self.dataset.records[position] for position in self.positions]
        self.domains = torch.tensor(
            [domain_names.index(record.domain) for record in records], dtype=torch.long
        )
        self.targets = torch.tensor([record.target for record in records], dtype=torch.long)
        self.pipelines = {domain_names.index(name): pipelines[name] for name in pipelines}

    def __len__(self) -> int:
        """Number of images."""
        return len(self.positions)

    def __getitem__(self, draw: Draw | int) -> dict[str, Tensor]:
        """One sample; a plain position stands for seed 0.

        Raises:
            DataError: The file cannot be read or decoded; the message names it.
        """
        position, seed = draw if isinstance(draw, Draw) else (draw, 0)
        index = self.positions[position]
        domain = self.domains[position]
        return {
            "image": self.pipelines[int(domain)](self.dataset.image(index), seed),
            "target": self.targets[position],
            "domain": domain,
            "index": torch.tensor(index),
        }
