"""What a loader reads: chosen images of a dataset, with labels only where they may be seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from domainnorm.data.augment import Pipeline
from domainnorm.data.dataset import UNLABELLED, DomainDataset, Record
from domainnorm.data.sampler import Draw
from domainnorm.errors import DataError


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
        - target: int64, () with ``0 .. K - 1`` for a class, (H, W) for a mask, (K,) with 0 and 1
          for findings; -1 where there is no label
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
        pipelines: Mapping[str, Pipeline],
    ) -> None:
        hidden = [name for name in dataset.domain_names if name not in labelled]
        self.dataset = dataset.without_labels(hidden)
        self.positions = list(positions)
        records = [self.dataset.records[position] for position in self.positions]
        self.domains = torch.tensor(
            [domain_names.index(record.domain) for record in records], dtype=torch.long
        )
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
        image, target = self._pair(index, self.pipelines[int(domain)], seed)
        return {"image": image, "target": target, "domain": domain, "index": torch.tensor(index)}

    def _pair(self, index: int, pipeline: Pipeline, seed: int) -> tuple[Tensor, Tensor]:
        record, pixels = self.dataset.records[index], self.dataset.image(index)
        masked = self.dataset.task == "segmentation" and record.mask is not None
        mask = self.dataset.mask(index) if masked else None
        try:
            image, classes = pipeline.pair(pixels, mask, seed)
        except DataError as error:
            raise DataError(f"{record.file}: {error}") from error
        return image, self._target(record, image) if classes is None else classes

    def _target(self, record: Record, image: Tensor) -> Tensor:
        """The label of an image that has no mask."""
        if self.dataset.task == "segmentation":
            return torch.full(image.shape[1:], UNLABELLED)
        if self.dataset.task == "multilabel":
            count = len(self.dataset.class_names)
            return torch.tensor(record.labels or (UNLABELLED,) * count)
        return torch.tensor(record.target)
