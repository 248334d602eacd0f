"""Dataset of images in domains: its records, a way to read them, and what is asked of them."""

from __future__ import annotations

import abc
import copy
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.images import WHITE, read_image, read_size
from domainnorm.data.masks import (
    BINARY,
    OF_BINARY,
    VOID,
    Classes,
    Colour,
    distinct_colours,
    read_mask,
)
from domainnorm.data.refusals import LeftOut
from domainnorm.errors import DataError, unknown

Split = Literal["train", "val", "test"]
UNLABELLED = -1
DATA_VARIABLE = "DOMAINNORM_DATA"
Dataset = TypeVar("Dataset", bound="DomainDataset")


@dataclass(frozen=True)
class Record:
    """One image, without its pixels.

    Args:
        file: Path relative to the root of the dataset, or another name that is unique in it.
        domain: Name of its domain.
        target: Class index in ``0 .. K - 1``, or -1 for an image without a class.
        group: What must not be torn apart by a split: a patient, a slide, a scene.
        split: ``train``, ``val`` or ``test``.
        mask: Path of its class mask, like ``file``; None for an image without one.
        labels: For each of K findings 1 present, 0 absent, -1 unknown; None for an image whose
            findings nobody looked for.
        metadata: What else is known about it, such as scanner, hour or weather.
        clean: Path of the image that it should be, like ``file``; None where there is none.
        generated: Whether a generator has made it, so that it is no sample of its domain.
    """

    file: str
    domain: str
    target: int
    group: str
    split: Split
    mask: str | None = None
    labels: tuple[int, ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)
    clean: str | None = None
    generated: bool = False

    @property
    def is_labelled(self) -> bool:
        """Whether it has a class, a mask, a finding that is known, or a clean image."""
        known = any(value >= 0 for value in self.labels or ())
        known |= self.mask is not None or self.clean is not None
        return self.target != UNLABELLED or known

    def without_label(self) -> Record:
        """The same image without class, mask, findings and clean image."""
        return replace(self, target=UNLABELLED, mask=None, labels=None, clean=None)


class DomainDataset(abc.ABC):
    """Images in domains; every image belongs to one domain and one split.

    Class constants say what a dataset is before it is read; they are literals, because commands
    that answer at once take them from the source text.

    Attributes:
        reads: What its files are: ``images``, ``dicom``, or ``volumes`` (NIfTI).
        task: What its labels are for: ``classification`` (one class per image), ``segmentation``
            (a mask of classes), ``multilabel`` (findings) or ``restoration`` (clean images).
        homepage: Where the data is described and can be got; empty for none to get.
        licence: Terms of use in a few words.
        layout: What is expected below ``root``, in one line.
        domain_names: The domains, in the order in which they were asked for.
        class_names: Names of the K classes; a target is a position in this list.
        records: One record per image; ``index`` everywhere means a position in this list.
        table: The file that lists the images and what is known about them, if there is one.
        keeps_size: Whether `mask` is at its own size, as `original_mask` is.
    """

    keeps_size: bool = True
    reads: str = "images"
    task: str = "classification"
    homepage: str = ""
    licence: str = ""
    layout: str = ""
    domain_names: list[str]
    class_names: list[str]
    records: list[Record]
    table: Path | None = None

    @cached_property
    def left_out(self) -> LeftOut:
        """Files that were looked at and are no record."""
        return LeftOut()

    @property
    def class_colours(self) -> list[Colour]:
        """An RGB colour for each class, 0 to 255, for figures."""
        return distinct_colours(len(self.class_names))

    @abc.abstractmethod
    def image(self, index: int) -> NDArray[np.uint8]:
        """Pixels of one record: (H, W, 3), RGB, 0 to 255.

        Raises:
            DataError: The file cannot be read or decoded; the message names it.
        """

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Classes of one record's pixels: (H, W), ``0 .. K - 1`` or 255 where there is none.

        Raises:
            DataError: The record has no mask, or its file cannot be read; the message names it.
        """
        raise DataError(f"{self.records[index].file}: a dataset of classes, there are no masks")

    def original_mask(self, index: int) -> NDArray[np.uint8]:
        """`mask` at its own size."""
        return self.mask(index)

    def clean(self, index: int) -> NDArray[np.uint8]:
        """Pixels that those of `image` should be, at the same size: (H, W, 3), RGB, 0 to 255.

        Raises:
            DataError: The record has none, or its file cannot be read; the message names it.
        """
        raise DataError(f"{self.records[index].file}: no clean image of it is known")

    def positions(self, domains: Collection[str], split: Split) -> list[int]:
        """Indices of the records of these domains and this split, but of generated ones."""
        return [
            index
            for index, record in enumerate(self.records)
            if record.split == split and record.domain in domains and not record.generated
        ]

    def generated(self, domains: Collection[str]) -> list[int]:
        """Indices of the generated records of these domains."""
        every = enumerate(self.records)
        return [index for index, one in every if one.generated and one.domain in domains]

    def groups_of(self, indices: Sequence[int]) -> list[str] | None:
        """Patient, slide or sequence of each of some records; None where each is its own."""
        found = [self.records[index].group for index in indices]
        return found if len(set(found)) < len(found) else None

    def sources(self, index: int, *, is_mask: bool) -> list[Path]:
        """Files that the pixels, or the label by pixels, of one record are made of, if known.

        Where one of them changes, kept copies are stale.
        """
        return []

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write a small synthetic dataset in the official layout, to try things out.

        Args:
            root: Folder of the data; made when it does not exist.
            seed: Seed of everything that is drawn.

        Raises:
            DataError: There is no official layout to write.
        """
        raise DataError(f"{cls.__name__}: no sample can be written; it has no official layout")

    def without_labels(
        self: Dataset, domains: Collection[str], but: Collection[int] = ()
    ) -> Dataset:
        """A shallow copy in which no record of ``domains`` has a class, a mask or findings.

        Args:
            domains: Names of domains.
            but: Positions of records that keep theirs.
        """
        masked, kept = copy.copy(self), set(but)
        masked.records = [
            record.without_label() if record.domain in domains and index not in kept else record
            for index, record in enumerate(self.records)
        ]
        return masked


class WrappedDataset(DomainDataset):
    """A dataset that changes what another gives, or adds to it, and is else as that one.

    Args:
        dataset: The other.
    """

    def __init__(self, dataset: DomainDataset) -> None:
        self.dataset = dataset
        self.keeps_size = dataset.keeps_size
        self.task = dataset.task
        self.reads = dataset.reads
        self.domain_names = dataset.domain_names
        self.class_names = dataset.class_names
        self.records = dataset.records
        self.table = dataset.table
        self.left_out = dataset.left_out

    @property
    def class_colours(self) -> list[Colour]:
        """Those of the dataset."""
        return self.dataset.class_colours


class FileDataset(DomainDataset):
    """Images, and masks where there are some, below ``root``; records hold their paths.

    Attributes:
        root: Folder of the data, absolute.
        white: Value of 16-bit files that is shown as white.
        mask_folders: Folders that are for masks alone.
        mask_lookup: Class of each value of a mask file, (256,) with 255 for none; None when the
            files hold class numbers already.
    """

    root: Path
    white: int = WHITE
    mask_folders: Sequence[Path] = ()
    mask_lookup: NDArray[np.uint8] | None = None

    def image(self, index: int) -> NDArray[np.uint8]:
        """See `DomainDataset`."""
        return read_image(self.root / self.records[index].file, self.white)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """See `DomainDataset`; a number that is no class is refused, too."""
        record = self.records[index]
        if record.mask is None:
            raise DataError(f"{record.file}: no mask is known for this image")
        file = self.root / record.mask
        values = self.read_values(file)
        if self.mask_lookup is not None:
            return self.mask_lookup[values]
        wrong = np.setdiff1d(np.unique(values), [*range(len(self.class_names)), VOID])
        if wrong.size:
            raise DataError(
                f"{file}: values {', '.join(map(str, wrong[:5]))}, expected classes 0 to "
                f"{len(self.class_names) - 1}, or 255 for pixels without one"
            )
        return values

    def sources(self, index: int, *, is_mask: bool) -> list[Path]:
        """See `DomainDataset`."""
        record = self.records[index]
        name = (record.mask or record.clean) if is_mask else record.file
        if name is None:
            return []
        file = self.root / name
        # ``scan.dcm#3`` is an image within a file.
        return [file if file.is_file() else self.root / name.rpartition("#")[0]]

    def read_values(self, file: Path) -> NDArray[np.uint8]:
        """What a mask file holds for each pixel: (H, W), 0 to 255.

        Raises:
            DataError: It cannot be read; the message names it.
        """
        return read_mask(file)


class MaskFiles(FileDataset):
    """Images with files of class numbers or colours, the classes of which the user names."""

    _classes: Classes

    @property
    def class_colours(self) -> list[Colour]:
        """An RGB colour for each class: that of ``classes.txt``, or one of its own hue."""
        return self._classes.colours

    def read_values(self, file: Path) -> NDArray[np.uint8]:
        """Classes of a mask file's pixels, see `Classes.read`."""
        return self._classes.read(file)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """See `FileDataset`; a mask of another size than its image is refused, too."""
        mask, record = super().mask(index), self.records[index]
        self.check_size(str(record.mask), mask, record.file)
        return mask

    def check_size(self, name: str, mask: NDArray[np.uint8], image: str) -> None:
        """Raise a DataError for a mask of another size than its image, both below the root."""
        height, width = read_size(self.root / image)
        if mask.shape != (height, width):
            raise DataError(
                f"{self.root / name}: {mask.shape[1]} × {mask.shape[0]} pixels, but its image "
                f"{self.root / image} has {width} × {height}; give both the same size"
            )

    def sources(self, index: int, *, is_mask: bool) -> list[Path]:
        """See `DomainDataset`; what names the classes of masks is among them."""
        own = super().sources(index, is_mask=is_mask)
        return [*own, self._classes.file] if is_mask else own


# A run fills the dataset's `domains` from the other two, so any of them can hold a wrong name.
DOMAIN_KEYS = "data.source, data.target or data.domains"


def select_domains(key: str, chosen: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The chosen domains, all of them when nothing is chosen.

    Raises:
        DataError: A name is unknown or given twice; the message starts with ``key``.
    """
    if chosen is None:
        return list(known)
    for position, name in enumerate(chosen):
        if name not in known:
            raise DataError(f"{key}: {unknown('domain', name, known)}")
        if name in chosen[:position]:
            raise DataError(f"{key}: domain '{name}' is given twice; name it once")
    if not chosen:
        raise DataError(f"{key}: an empty list; name at least one of {', '.join(known)}")
    return list(chosen)


def check_labelled(dataset: DomainDataset, domains: Collection[str]) -> None:
    """Raise a DataError for domains that have images without a label in training or validation."""
    for record in dataset.records:
        if record.domain in domains and record.split != "test" and not record.is_labelled:
            raise DataError(
                f"{record.file}: no label, but domain '{record.domain}' trains with labels; "
                "give the image a class or a mask, or remove it"
            )


def evenly(positions: Sequence[int], most: int) -> Sequence[int]:
    """At most so many of some positions, at equal distances over all of them."""
    return positions[:: -(-len(positions) // most) or 1]


def check_mask_values(dataset: DomainDataset, positions: Iterable[int]) -> None:
    """Refuse masks of 0 and 255 alone, whose second class would be no class; some tell of all.

    Raises:
        DataError: All masks of a domain are such, or one cannot be read.
    """
    found: dict[str, set[int]] = {}
    for position in positions:
        record = dataset.records[position]
        if record.mask is not None:
            numbers = np.unique(dataset.mask(position)).tolist()
            found.setdefault(record.domain, set()).update(numbers)
    for domain, numbers in found.items():
        if numbers == BINARY:
            raise DataError(f"masks of domain '{domain}' {OF_BINARY}")


def check_splits(
    dataset: DomainDataset,
    domains: Collection[str],
    labelled: Collection[str],
    unlabelled: Collection[str],
) -> None:
    """Refuse domains without an image in a split that they need.

    All are tested, ``labelled`` ones trained and validated on, ``unlabelled`` ones trained on.

    Raises:
        DataError: Names the first such domain and split.
    """
    found = {(record.domain, record.split) for record in dataset.records if not record.generated}
    for domain in domains:
        trains = domain in labelled or domain in unlabelled
        needs = ["test", *(["train"] if trains else []), *(["val"] if domain in labelled else [])]
        for split in needs:
            if (domain, split) not in found:
                drawn = "" if split == "train" else f", or raise data.{split}_fraction"
                raise DataError(
                    f"domain '{domain}': no images in split {split}; add images, or rows with "
                    f"split {split} to the split table{drawn}"
                )


def attributes_of(records: Iterable[Record], names: Sequence[str]) -> dict[str, list[str]]:
    """Attribute -> its value for each record, an empty text where it is missing."""
    chosen = list(records)
    return {name: [str(one.metadata.get(name, "")) for one in chosen] for name in names}


def check_attributes(names: Sequence[str], dataset: DomainDataset) -> None:
    """Raise a DataError for names that no image has anything for."""
    known = list(dict.fromkeys(key for record in dataset.records for key in record.metadata if key))
    where = "this dataset" if dataset.table is None else str(dataset.table)
    for position, name in enumerate(names):
        if name not in known:
            raise DataError(f"data.attributes: {where}: {unknown('attribute', name, known)}")
        if name in names[:position]:
            raise DataError(f"data.attributes: '{name}' is given twice; name it once")


def checked_white(white: int) -> int:
    """``white``; a DataError unless it is a value that 16 bits hold and 8 do not."""
    if not 255 < white <= WHITE:
        raise DataError(f"data.white: {white}, expected 256 to {WHITE}, such as 4095 for 12 bits")
    return white


def white_of(options: Mapping[str, Any]) -> int | None:
    """``white`` by the options of a dataset; None where its parts have different ones."""
    parts = options.get("parts") or [options]
    found = {int(part.get("white", WHITE)) for part in parts}
    return found.pop() if len(found) == 1 else None


def data_folder() -> Path:
    """The folder that relative roots are in: what DOMAINNORM_DATA names, or ``data``."""
    return Path(os.environ.get(DATA_VARIABLE) or "data")


def resolved_root(root: str) -> Path:
    """The folder that the recipe key ``data.root`` means, absolute; see `data_folder`.

    Raises:
        DataError: It is no folder; the message gives the resolved path and the variable.
    """
    base = os.environ.get(DATA_VARIABLE)
    folder = data_folder() / root
    if not folder.is_dir():
        state = f"is '{base}'" if base else "is not set, so 'data' is used"
        way_out = (
            "docs/data.md says how to get the data, and `domainnorm run RECIPE --sample` tries a "
            "recipe without it"
        )
        if Path(root).is_dir():
            way_out = f"the one in the working directory is {Path(root).absolute()}: write that"
        raise DataError(
            f"data.root: '{root}' resolves to {folder.absolute()}, which is not a folder; the "
            f"environment variable {DATA_VARIABLE} {state}; {way_out}"
        )
    return folder.absolute()
