"""What datasets of driving scenes share: a choice of label set, and files in pairs."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from domainnorm.data.dataset import DOMAIN_KEYS, FileDataset, Record, resolved_root, select_domains
from domainnorm.data.datasets.label_sets import Colour, Lookup, label_set, mapping
from domainnorm.data.official import draw_test, draw_validation
from domainnorm.data.refusals import is_collecting
from domainnorm.data.splits import check_fraction, cut
from domainnorm.data.table import Row
from domainnorm.errors import DataError

PAGE = "docs/data_driving.md"


class DrivingDataset(FileDataset):
    """Street scenes whose masks are given in the label set that was chosen.

    A subclass says in class constants what its files hold, and in `scan` which there are.

    Args:
        root: Folder of the data: absolute, or relative to DOMAINNORM_DATA.
        domains: Domains to use; all of them when None.
        classes: Label set of the masks.
        val_fraction: Share of the training images to validate on, in (0, 1).
        split_seed: Seed of that draw.

    Attributes:
        own: Name of the dataset's own label set.
        values: Numbers of the dataset's own label set by the values of its mask files, (256,).
        known: Names of the domains there are.
        mask_files: What all mask files match, relative to ``root``.

    Raises:
        DataError: A folder, an image or a mask is missing, or a key is wrong.
    """

    task: Literal["segmentation"] = "segmentation"
    own: str = "cityscapes19"
    values: Lookup
    known: Sequence[str]
    mask_files: str
    mask_lookup: Lookup

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        classes: Literal[
            "cityscapes19", "cityscapes16", "cityscapes13", "camvid11"
        ] = "cityscapes19",
        val_fraction: float = 0.2,
        split_seed: int = 0,
    ) -> None:
        self.root = resolved_root(root)
        self._colours = list(label_set(classes).colours.values())
        self.class_names = label_set(classes).names
        self.mask_lookup = self.class_lookup(classes)
        records = self.scan()
        check_masks(self.root, records, self.mask_files)
        self.keep(self.draw(records, val_fraction, split_seed), domains)

    @abc.abstractmethod
    def scan(self) -> list[Record]:
        """Records of all images, in the official splits.

        Raises:
            DataError: A folder or its images are missing.
        """

    def class_lookup(self, classes: str) -> Lookup:
        """Numbers of the label set ``classes`` by the values of mask files, (256,)."""
        return mapping(self.own, classes)[self.values]

    def draw(self, records: Sequence[Record], fraction: float, seed: int) -> list[Record]:
        """Draw the splits that are not official: here validation, whole groups of each domain.

        Raises:
            DataError: The fraction is out of range.
        """
        return draw_validation(records, fraction, seed)

    @property
    def class_colours(self) -> list[Colour]:
        """The official RGB colour of each class."""
        return self._colours

    def keep(self, records: Sequence[Record], domains: Sequence[str] | None) -> None:
        """Keep the records of the chosen domains.

        Raises:
            DataError: An unknown domain, or one without any image.
        """
        self.domain_names = select_domains(DOMAIN_KEYS, domains, self.known)
        self.records = [record for record in records if record.domain in self.domain_names]
        for domain in self.domain_names:
            if not any(record.domain == domain for record in self.records):
                raise DataError(
                    f"{self.root}: no images of domain '{domain}'; expected {self.layout} ({PAGE})"
                )


class RenderedDataset(DrivingDataset):
    """Rendered street scenes without official splits: test images are drawn as well.

    Args:
        root: Folder of the data: absolute, or relative to DOMAINNORM_DATA.
        domains: Domains to use; all of them when None.
        classes: Label set of the masks.
        test_fraction: Share of all images to test on, in (0, 1).
        val_fraction: Share of the other images to validate on, in (0, 1).
        split_seed: Seed of these draws.

    Raises:
        DataError: A folder, an image or a mask is missing, or a key is wrong.
    """

    def __init__(
        self,
        *,
        test_fraction: float = 0.05,
        val_fraction: float = 0.05,
        **options: Any,
    ) -> None:
        self.test_fraction = test_fraction
        super().__init__(val_fraction=val_fraction, **options)

    def draw(self, records: Sequence[Record], fraction: float, seed: int) -> list[Record]:
        """Draw test images, and images for validation from the others, whole groups at a time.

        Raises:
            DataError: A fraction is out of range.
        """
        return draw_validation(draw_test(records, self.test_fraction, seed), fraction, seed)


def found(root: Path, pattern: str) -> list[str]:
    """Paths below ``root`` that match ``pattern``, relative to it, sorted.

    Raises:
        DataError: There is none.
    """
    # Files that start with a dot are remains of archives made on a Mac (._image.png).
    matches = (file for file in root.glob(pattern) if file.name[0] != ".")
    files = sorted(file.relative_to(root).as_posix() for file in matches)
    if not files:
        raise DataError(f"{root}: no file {pattern}; {PAGE} says what to download and unpack")
    return files


def check_masks(root: Path, records: Sequence[Record], pattern: str) -> None:
    """Refuse records whose mask files do not exist.

    Args:
        root: Folder of the data.
        records: Images and masks.
        pattern: What all mask files match, so that folders are listed instead of asking for
            thousands of files one by one.

    Raises:
        DataError: Names the first missing mask and its image.
    """
    present = set(found(root, pattern))
    missing = [record for record in records if record.mask and record.mask not in present]
    if missing and not is_collecting():
        raise DataError(
            f"{root / str(missing[0].mask)}: missing, the mask of {missing[0].file} "
            f"({len(missing)} of {len(records)} images lack theirs); unpack the labels next to the "
            f"images ({PAGE})"
        )


def draw_scenes(records: Sequence[Record], fraction: float, seed: int) -> list[Record]:
    """Move whole groups from ``train`` to ``val``, drawn from all domains together.

    The draw depends on the groups alone, so that a scene is in the same split in all its domains,
    and in all datasets that have the same scenes.

    Args:
        records: Images of all domains.
        fraction: Share of the training images to move, in (0, 1).
        seed: Seed of the draw.

    Raises:
        DataError: The fraction is out of range.
    """
    check_fraction("data.val_fraction", fraction)
    rows = [Row(record.file, "scenes", "", record.group, record.split) for record in records]
    drawn = cut(rows, "val", fraction, seed)
    return [replace(record, split=row.split) for record, row in zip(records, drawn, strict=True)]
