"""Images that a generator has made, beside those of a dataset."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path

from domainnorm.data.dataset import DomainDataset, Record, WrappedDataset
from domainnorm.data.images import find_images, read_image
from domainnorm.data.preprocessing import Pixels
from domainnorm.errors import DataError, unknown

_ABOVE = "generated/"  # before the names of images, which may be names in the dataset too


class WithGenerated(WrappedDataset):
    """A dataset with further training images, whose records are ``generated``.

    They have a class and a domain of the dataset, but are no sample of it: nothing but training
    batches has them.

    Args:
        dataset: Of images with one class each.
        root: Folder with the images, in ``<domain>/<class>/``, as `domainnorm generate` writes
            them.
        domains: Those whose images are taken; there may be others of the dataset.

    Raises:
        DataError: Labels of another kind, a folder that is not there, a domain or class that the
            dataset does not have, or no image of any of the domains.
    """

    def __init__(self, dataset: DomainDataset, root: Path, domains: Collection[str]) -> None:
        if dataset.task != "classification":
            raise DataError(
                f"data.generated: images of a class, but the dataset has labels for {dataset.task}"
            )
        if not root.is_dir():
            raise DataError(f"data.generated.root: {root.absolute()} is not a folder")
        super().__init__(dataset)
        self.folder = root.absolute()
        for folder in sorted(one for one in self.folder.iterdir() if one.is_dir()):
            if folder.name not in dataset.domain_names and not folder.name.startswith("."):
                problem = unknown("domain", folder.name, dataset.domain_names)
                raise DataError(f"data.generated.root: {folder}: {problem}")
        found = [record for name in domains for record in self._of(name)]
        if not found:
            raise DataError(
                f"data.generated.root: {self.folder} has no images in <domain>/<class>/ of "
                f"{', '.join(domains)}; `domainnorm generate RUN` writes such a folder"
            )
        self.records = [*dataset.records, *found]

    @cached_property
    def digest(self) -> str:
        """Of the files, in hexadecimal digits."""
        found = hashlib.sha256()
        for record in self.records[len(self.dataset.records) :]:
            found.update(self._file(record).read_bytes())
        return found.hexdigest()

    def _of(self, domain: str) -> Iterator[Record]:
        """Records of the images of a domain."""
        place = self.folder / domain
        for folder in sorted(place.iterdir()) if place.is_dir() else ():
            if not folder.is_dir():
                continue
            if folder.name not in self.class_names:
                problem = unknown("class", folder.name, self.class_names)
                raise DataError(f"data.generated.root: {folder}: {problem}")
            for file in find_images(folder):
                name = f"{_ABOVE}{domain}/{folder.name}/{file}"
                label = self.class_names.index(folder.name)
                yield Record(name, domain, label, name, "train", generated=True)

    def _file(self, record: Record) -> Path:
        return self.folder / record.file.removeprefix(_ABOVE)

    def over(self, dataset: DomainDataset) -> WithGenerated:
        """The same images beside another reading of the dataset, such as a cached one."""
        other = copy.copy(self)
        other.dataset, other.keeps_size = dataset, dataset.keeps_size
        return other

    def image(self, index: int) -> Pixels:
        """See `DomainDataset`."""
        if index < len(self.dataset.records):
            return self.dataset.image(index)
        return read_image(self._file(self.records[index]))

    def sources(self, index: int, *, is_mask: bool) -> list[Path]:
        """See `DomainDataset`."""
        if index < len(self.dataset.records):
            return self.dataset.sources(index, is_mask=is_mask)
        return [self._file(self.records[index])]
