"""What a loader reads: chosen images of a dataset, with labels only where they may be seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from domainnorm.data.augmentation.degradation import Degradation
from domainnorm.data.augmentation.pipeline import Pipeline, Steps
from domainnorm.data.dataset import UNLABELLED, DomainDataset, Record, attributes_of
from domainnorm.data.masks import VOID
from domainnorm.data.sampler import Draw
from domainnorm.errors import DataError


@dataclass(frozen=True)
class Shots:
    """Images with labels of domains whose other labels stay hidden.

    Args:
        positions: Domain -> positions of these images in ``dataset.records``.
        augment: Domain -> training steps of these images; none when absent.
    """

    positions: Mapping[str, Sequence[int]] = field(default_factory=dict)
    augment: Mapping[str, Steps] = field(default_factory=dict)

    @property
    def all(self) -> list[int]:
        """Positions of all domains."""
        return [position for found in self.positions.values() for position in found]


class DomainView(Dataset[dict[str, Any]]):
    """Some images of a dataset as ``{"image", "target", "domain", "index", "labelled"}``.

    Targets of domains that are not ``labelled`` are -1, but for ``shots``, and the view keeps no
    other copy of them: it holds the dataset without their labels.

    Args:
        dataset: The images.
        positions: Indices into ``dataset.records``, in the order of the view.
        domain_names: Domains of the transfer; a domain label is a position in this list.
        labelled: Domains whose labels may be seen.
        pipelines: For every domain of the view, what turns an image and a seed into a tensor.
        attributes: Names of metadata that samples carry as text, empty where it is missing.
        originals: Whether samples carry their mask at its own size too, for `join`.
        strong: Whether samples carry the second view of pipelines that have one.
        shots: Positions of further records whose labels may be seen -> the pipeline of each.
        degrade: What images are made worse by; targets are then the images before, and labels of
            the dataset are not read. Without it targets of pairs are their clean images.

    Shape:
        - image: (3, H, W), float32
        - target: int64, () with ``0 .. K - 1`` for a class, (H, W) for a mask, (K,) with 0 and 1
          for findings; with ``degrade`` float32, (3, H, W), the image before, 0 to 1; -1 where
          there is no label
        - domain: (), int64, ``0 .. D - 1``
        - index: (), int64, position in ``dataset.records``
        - labelled: (), bool, whether the method may learn from the target
        - strong: (3, H, W), float32, the second view; only with ``strong`` and when a pipeline has
          one, for domains without one the same as ``image``
        - attributes: name -> text; only when some are named
        - original: uint8, (h, w), the mask as the dataset has it, or 255 everywhere; only with
          ``originals``
    """

    def __init__(  # noqa: PLR0913 - what may be seen, and how
        self,
        dataset: DomainDataset,
        positions: Sequence[int],
        *,
        domain_names: Sequence[str],
        labelled: Collection[str],
        pipelines: Mapping[str, Pipeline],
        attributes: Sequence[str] = (),
        originals: bool = False,
        strong: bool = True,
        shots: Mapping[int, Pipeline] | None = None,
        degrade: Degradation | None = None,
    ) -> None:
        hidden = [name for name in dataset.domain_names if name not in labelled]
        self.shots = dict(shots or {})
        self.dataset = dataset.without_labels(hidden, self.shots)
        self.positions = list(positions)
        records = [self.dataset.records[position] for position in self.positions]
        labels = [domain_names.index(record.domain) for record in records]
        self.domains = torch.tensor(labels, dtype=torch.long)
        self.labelled = {domain_names.index(name) for name in labelled}
        used = [*pipelines.values(), *self.shots.values()]
        self.has_strong = strong and any(one.strong for one in used)
        self.pipelines = {domain_names.index(name): pipelines[name] for name in pipelines}
        self.attributes = list(attributes)
        self.originals = originals
        self.degrade = degrade

    def __len__(self) -> int:
        """Number of images."""
        return len(self.positions)

    def __getitem__(self, draw: Draw | int) -> dict[str, Any]:
        """One sample; a plain position stands for seed 0.

        Raises:
            DataError: The file cannot be read or decoded; the message names it.
        """
        position, seed = draw if isinstance(draw, Draw) else (draw, 0)
        index = self.positions[position]
        domain = self.domains[position]
        record, pixels = self.dataset.records[index], self.dataset.image(index)
        masked = self.dataset.task == "segmentation" and record.mask is not None
        masked &= self.degrade is None
        pipeline = self.shots.get(index) or self.pipelines[int(domain)]
        mask = self.dataset.mask(index) if masked else None
        clean = None if record.clean is None else self.dataset.clean(index)
        try:
            views = pipeline.views(pixels, mask, seed, strong=self.has_strong, clean=clean)
        except DataError as error:
            raise DataError(f"{record.file}: {error}") from error
        known = int(domain) in self.labelled or index in self.shots
        image, target = views.image, views.mask
        if self.degrade is not None:
            image, target = self._degraded(image, pipeline, (seed, index), known=known)
        elif views.clean is not None:
            target = _shares(views.clean, pipeline)
        elif target is None:
            target = self._target(record, image)
        sample: dict[str, Any] = {
            "image": image,
            "target": target,
            "domain": domain,
            "index": torch.tensor(index),
            "labelled": torch.tensor(known),
        }
        if self.originals:
            if masked and not self.dataset.keeps_size:
                mask = self.dataset.original_mask(index)
            own = np.full(pixels.shape[:2], VOID, np.uint8) if mask is None else mask
            sample["original"] = torch.from_numpy(np.ascontiguousarray(own))
        if self.has_strong:
            sample["strong"] = views.image if views.strong is None else views.strong
        if self.attributes:
            found = attributes_of([record], self.attributes)
            sample["attributes"] = {name: values[0] for name, values in found.items()}
        return sample

    def _degraded(
        self, image: Tensor, pipeline: Pipeline, seed: Sequence[int], *, known: bool
    ) -> tuple[Tensor, Tensor]:
        """An image made worse, normalized, and what it was before, where that may be seen."""
        assert self.degrade is not None
        clean = _shares(image, pipeline)
        mean, std = _moments(pipeline)
        worse = (self.degrade(clean, seed) - mean) / std
        return worse, clean if known else torch.full_like(clean, UNLABELLED)

    def _target(self, record: Record, image: Tensor) -> Tensor:
        """The label of an image that has no mask and no clean image."""
        if self.dataset.task == "restoration":
            return torch.full_like(image, UNLABELLED)
        if self.dataset.task == "segmentation":
            return torch.full(image.shape[1:], UNLABELLED)
        if self.dataset.task == "multilabel":
            count = len(self.dataset.class_names)
            return torch.tensor(record.labels or (UNLABELLED,) * count)
        return torch.tensor(record.target)


def _moments(pipeline: Pipeline) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation by which images are normalized, (C, 1, 1) each."""
    made = pipeline.preprocessing
    return torch.tensor(made.mean)[:, None, None], torch.tensor(made.std)[:, None, None]


def _shares(image: Tensor, pipeline: Pipeline) -> Tensor:
    """A normalized image with values from 0, black, to 1, white."""
    mean, std = _moments(pipeline)
    return (image * std + mean).clamp(0, 1)


def join(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch of samples; masks at their own sizes stay a list."""
    apart = [{name: sample[name] for name in sample if name != "original"} for sample in samples]
    batch: dict[str, Any] = default_collate(apart)
    if "original" in samples[0]:
        batch["original"] = [sample["original"] for sample in samples]
    return batch


class DomainImages:
    """Draws one of some images of a dataset by seed, for steps that take another domain's style."""

    def __init__(self, dataset: DomainDataset, positions: Sequence[int]) -> None:
        self.dataset = dataset
        self.positions = list(positions)

    def __call__(self, seed: int) -> NDArray[np.uint8]:
        """Pixels of one image: (H, W, 3)."""
        drawn = np.random.default_rng((seed, 2)).integers(len(self.positions))
        return self.dataset.image(self.positions[int(drawn)])
