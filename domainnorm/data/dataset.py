"""What every dataset of images in domains offers."""

from __future__ import annotations

import abc
import colorsys
import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from domainnorm.errors import DataError, unknown

Split = Literal["train", "val", "test"]
UNLABELLED = -1
VOID = 255  # of a mask: a pixel that has no class
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
    """

    file: str
    domain: str
    target: int
    group: str
    split: Split
    mask: str | None = None
    labels: tuple[int, ...] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def is_labelled(self) -> bool:
        """Whether it has a class, a mask or findings."""
        return self.target != UNLABELLED or self.mask is not None or self.labels is not None

    def without_label(self) -> Record:
        """The same image without class, mask and findings."""
        return replace(self, target=UNLABELLED, mask=None, labels=None)


class DomainDataset(abc.ABC):
    """Images in domains; every image belongs to one domain and one split.

    Class constants say what a dataset is before it is read; they are literals, because commands
    that answer at once take them from the source text.

    Attributes:
        reads: What its files are: ``images``, ``dicom``, or ``volumes`` (NIfTI).
        task: What its labels are for: ``classification`` (one class per image), ``segmentation``
            (a mask of classes) or ``multilabel`` (findings).
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

    @property
    def class_colours(self) -> list[tuple[int, int, int]]:
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

    def sources(self, index: int, *, is_mask: bool) -> list[Path]:
        """Files that the pixels, or the classes, of one record are made of, as far as known.

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

    def without_labels(self: Dataset, domains: Collection[str]) -> Dataset:
        """A shallow copy in which no record of ``domains`` has a class, a mask or findings."""
        masked = copy.copy(self)
        masked.records = [
            record.without_label() if record.domain in domains else record
            for record in self.records
        ]
        return masked


def distinct_colours(count: int) -> list[tuple[int, int, int]]:
    """``count`` RGB colours of different hue, 0 to 255; the first is a dark grey."""
    colours = [(64, 64, 64)]
    for position in range(count - 1):
        # The golden ratio keeps neighbours in the list far apart on the circle of hues.
        red, green, blue = colorsys.hsv_to_rgb(0.618034 * position % 1, 0.75, 0.95)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colours[:count]


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
    """Refuse domains that have images without a label in training or validation.

    Raises:
        DataError: Names the first of them.
    """
    for record in dataset.records:
        if not record.is_labelled and record.domain in domains and record.split != "test":
            raise DataError(
                f"{record.file}: no label, but domain '{record.domain}' trains with labels; "
                "give the image a class or a mask, or remove it"
            )


def check_splits(
    dataset: DomainDataset,
    domains: Collection[str],
    labelled: Collection[str],
    unlabelled: Collection[str],
) -> None:
    """Refuse domains without an image in a split that they need.

    Args:
        dataset: The images.
        domains: All of them are tested.
        labelled: Those trained and validated on.
        unlabelled: Those trained on without labels.

    Raises:
        DataError: Names the first such domain and split.
    """
    found = {(record.domain, record.split) for record in dataset.records}
    for domain in domains:
        trains = domain in labelled or domain in unlabelled
        needs = ["test", *(["train"] if trains else []), *(["val"] if domain in labelled else [])]
        for split in needs:
            if (domain, split) not in found:
                raise DataError(
                    f"domain '{domain}': no images in split {split}; add images, or rows with "
                    f"split {split} to the split table"
                )
