"""Images of the datasets that measurements are made on: ``$DOMAINNORM_DATA`` has to be set."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from domainnorm.backbones import data_config
from domainnorm.backbones.model import DomainModel
from domainnorm.data import DomainDataset, Preprocessing
from domainnorm.data.dataset import Split


class Drawn(NamedTuple):
    """Images (N, 3, H, W) and their classes (N,)."""

    image: Tensor
    target: Tensor


def draw(
    dataset: DomainDataset,
    domain: str,
    split: Split,
    *,
    number: int,
    seed: int,
    like: Preprocessing,
) -> Drawn:
    """At most ``number`` images of a domain in random order, a function of the seed alone."""
    positions = [
        position
        for position, record in enumerate(dataset.records)
        if record.domain == domain and record.split == split
    ]
    chosen = np.random.default_rng(seed).permutation(positions)[:number].tolist()
    images = [like(dataset.image(position)) for position in chosen]
    targets = [dataset.records[position].target for position in chosen]
    return Drawn(torch.stack(images), torch.tensor(targets))


def preprocessing_of(model: DomainModel, size: int) -> Preprocessing:
    """What the backbone was trained with, at another size."""
    return Preprocessing.from_config(data_config(model), size)
