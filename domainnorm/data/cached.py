"""Cache of decoded and resized images on disk, for data that is slow to decode."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import DomainDataset, WrappedDataset
from domainnorm.data.preprocessing import Preprocessing
from domainnorm.errors import DataError
from domainnorm.storage import whole_file

Pixels = NDArray[np.uint8]
_Kind = Literal["image", "mask", "clean"]


# Options that decide which images there are, and nothing about their pixels.
_OF_LISTS = ("domains", "splits", "val_fraction", "test_fraction", "split_seed")


class CachedDataset(WrappedDataset):
    """A dataset whose images, masks and clean images are kept at input size, as ``.npy`` files.

    Batches are bit for bit those of the dataset itself. Files are written when an image is first
    read and go by the path, size and time of what they were made from, so a changed image is
    decoded anew, and by the options the dataset was made with, so that two readings of one file are
    two.
    """

    def __init__(
        self,
        dataset: DomainDataset,
        folder: Path,
        preprocessing: Preprocessing,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(dataset)
        self.keeps_size = False
        self.folder = folder
        self.preprocessing = preprocessing
        self.options = _of_pixels(options or {})

    def without_labels(self, domains: Collection[str], but: Collection[int] = ()) -> CachedDataset:
        """See `DomainDataset`."""
        masked = copy.copy(self)
        masked.dataset = self.dataset.without_labels(domains, but)
        masked.records = masked.dataset.records
        return masked

    def image(self, index: int) -> Pixels:
        """See `DomainDataset`, at the size of the input; refuses a cache that cannot be written."""
        return self._kept(index, "image", lambda: self.dataset.image(index))

    def mask(self, index: int) -> Pixels:
        """See `image`."""
        if self.records[index].mask is None:
            return self.dataset.mask(index)  # says that there is none
        return self._kept(index, "mask", lambda: self.dataset.mask(index))

    def clean(self, index: int) -> Pixels:
        """See `image`."""
        if self.records[index].clean is None:
            return self.dataset.clean(index)  # says that there is none
        return self._kept(index, "clean", lambda: self.dataset.clean(index))

    def original_mask(self, index: int) -> Pixels:
        """Classes at the size of the image, from its file: (h, w)."""
        return self.dataset.original_mask(index)

    def sources(self, index: int, *, is_mask: bool) -> list[Path]:
        """Those of the dataset."""
        return self.dataset.sources(index, is_mask=is_mask)

    def _kept(self, index: int, kind: _Kind, read: Callable[[], Pixels]) -> Pixels:
        file = self.folder / f"{self._key(index, kind)}.npy"
        try:
            kept: Pixels = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError):  # not there, or cut off by a kill or a full disk
            kept = np.ascontiguousarray(self.preprocessing.resized(read(), is_mask=kind == "mask"))
            self._write(file, kept)
        return kept

    def _key(self, index: int, kind: _Kind) -> str:
        made, record = self.preprocessing, self.records[index]
        name = {"image": record.file, "mask": record.mask, "clean": record.clean}[kind]
        parts: list[Any] = [type(self.dataset).__name__, self.options, name, kind == "mask"]
        parts += [made.height, made.width, made.fit, made.interpolation]
        for source in self.dataset.sources(index, is_mask=kind != "image"):
            if source.is_file():
                stat = source.stat()
                parts += [str(source), stat.st_size, stat.st_mtime_ns]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def _write(self, file: Path, pixels: Pixels) -> None:
        try:
            # Damaged files are made anew, so nobody has to wait for the disk.
            with whole_file(file, durable=False) as partial, partial.open("wb") as stream:
                np.save(stream, pixels)
        except OSError as error:
            raise DataError(
                f"data.cache: {file} cannot be written ({error.strerror}); free some space, name "
                "another folder, or leave the key out"
            ) from error


def _of_pixels(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a dataset, and of its parts, that may decide what an image or mask is."""
    kept = {key: value for key, value in sorted(options.items()) if key not in _OF_LISTS}
    if "parts" in kept:
        kept["parts"] = [_of_pixels(part) for part in kept["parts"]]
    return kept
