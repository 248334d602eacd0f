"""What every dataset of images in domains offers."""

from __future__ import annotations

import abc
import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from domainnorm.errors import DataError, unknown

Split = Literal["train", "val", "test"]
UNLABELLED = -1
Dataset = TypeVar("Dataset", bound="DomainDataset")


@dataclass(frozen=True)
class Record:
    """One image, without its pixels.

    Args:
        file: Path relative to the root of the dataset, or another name that is unique in it.
        domain: Name of its domain.
        target: Class index in ``0 .. K - 1``, or -1 for an image without a label.
        group: What must not be torn apart by a split: a patient, a slide, a scene.
        split: ``train``, ``val`` or ``test``.
    """

    file: str
    domain: str
    target: int
    group: str
    split: Split


class DomainDataset(abc.ABC):
    """Images in domains; every image belongs to one domain, one split and at most one class.

    Attributes:
        domain_names: The domains, in the order in which they were asked for.
        class_names: Names of the K classes; a target is a position in this list.
        records: One record per image; ``index`` everywhere means a position in this list.
    """

    domain_names: list[str]
    class_names: list[str]
    records: list[Record]

    @abc.abstractmethod
    def image(self, index: int) -> NDArray[np.uint8]:
        """Pixels of one record: (H, W, 3), RGB, 0 to 255.

        Raises:
            DataError: The file cannot be read or decoded; the message names it.
        """

    def without_labels(self: Dataset, domains: Collection[str]) -> Dataset:
        """A shallow copy in which every record of ``domains`` has target -1."""
        masked = copy.copy(self)
        masked.records = [
            replace(record, target=UNLABELLED) if record.domain in domains else record
            for record in self.records
        ]
        return masked


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
