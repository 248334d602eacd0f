"""Domains whose images are those of another, changed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from domainnorm.data.dataset import DomainDataset, WrappedDataset
from domainnorm.data.preprocessing import Pixels, Preprocessing


class TwinDataset(WrappedDataset):
    """A dataset in which some domains have a twin: the same images, changed.

    A twin has the splits, groups, labels and masks of its domain, even if the change moves pixels
    (as in Kamann and Rother, CVPR 2020, arXiv:1908.05005).

    Args:
        dataset: Has the domains.
        domains: Those that have a twin.
        ending: Of the names of twins.
        change: Image (H, W, 3) and the name of its file → image of the same size.

    Attributes:
        preprocessing: Images get the size of the input before they are changed; None: their own.
        originals: Position in the dataset of each record.
    """

    def __init__(
        self,
        dataset: DomainDataset,
        domains: Collection[str],
        ending: str,
        change: Callable[[Pixels, str], Pixels],
    ) -> None:
        super().__init__(dataset)
        self.change = change
        self.preprocessing: Preprocessing | None = None
        self.domain_names = [*dataset.domain_names, *(f"{one}{ending}" for one in domains)]
        self.originals = list(range(len(dataset.records)))
        self.records = list(dataset.records)
        for position, record in enumerate(dataset.records):
            if record.domain in domains:
                self.originals.append(position)
                self.records.append(replace(record, domain=f"{record.domain}{ending}"))

    def with_size(self, dataset: DomainDataset, preprocessing: Preprocessing) -> TwinDataset:
        """The same, of a cached dataset, and at the size of the input."""
        sized = copy.copy(self)
        sized.dataset, sized.preprocessing, sized.keeps_size = dataset, preprocessing, False
        return sized

    def image(self, index: int) -> Pixels:
        """See `DomainDataset`."""
        image = self._sized(index, self.dataset.image(self.originals[index]))
        if index < len(self.dataset.records):
            return image
        return self.change(image, self.records[index].file)

    def mask(self, index: int) -> Pixels:
        """See `DomainDataset`; of a twin that of its image."""
        if self.records[index].mask is None:
            return super().mask(index)  # says that there is none
        return self._sized(index, self.dataset.mask(self.originals[index]), is_mask=True)

    def clean(self, index: int) -> Pixels:
        """See `DomainDataset`; of a twin that of its image, which is not changed."""
        if self.records[index].clean is None:
            return super().clean(index)  # says that there is none
        return self._sized(index, self.dataset.clean(self.originals[index]))

    def _sized(self, index: int, pixels: Pixels, *, is_mask: bool = False) -> Pixels:
        """Pixels of a twin at the size that its image is changed at; of others as they are."""
        if index < len(self.dataset.records) or self.preprocessing is None:
            return pixels
        return self.preprocessing.fitted(pixels, is_mask=is_mask)

    def original_mask(self, index: int) -> Pixels:
        """See `mask`."""
        return self.dataset.original_mask(self.originals[index])

    def sources(self, index: int, *, is_mask: bool) -> list[Path]:
        """Those of the image."""
        return self.dataset.sources(self.originals[index], is_mask=is_mask)
