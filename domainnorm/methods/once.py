"""Each image of a pass counted once."""

from __future__ import annotations

import torch

from domainnorm.backbones import DomainModel, MomentEstimator
from domainnorm.methods.base import Batch
from domainnorm.methods.conditions import embedding_of


class MomentPass:
    """One pass of batches through a model, for the moments of their images.

    Training batches are all of one size and equal parts of each domain, so some images of a pass
    come again to fill them. Those count once here.

    Args:
        model: Its running moments are estimated.
    """

    def __init__(self, model: DomainModel) -> None:
        self._model = model
        self._estimator = MomentEstimator(model)
        self._seen: set[int] = set()

    def observe(self, batch: Batch) -> None:
        """Add the images of a batch that did not come before.

        All of the batch goes through the model: its statistics normalize the layers on the way.
        """
        fresh = []
        for index in batch["index"].tolist():
            fresh.append(index not in self._seen)
            self._seen.add(index)
        if any(fresh):
            with self._estimator.observing(torch.tensor(fresh, device=batch["image"].device)):
                embedding = embedding_of(self._model, batch)
                self._model(batch["image"], batch["domain"], embedding=embedding)

    def write(self) -> None:
        """Put the pooled moments into the rows of the domains that were seen."""
        self._estimator.write()
