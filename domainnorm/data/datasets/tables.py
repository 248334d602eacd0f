"""Images that any CSV, TSV or Parquet table lists: with a class, a mask, or several findings."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from domainnorm.data.dataset import (
    DOMAIN_KEYS,
    UNLABELLED,
    FileDataset,
    MaskFiles,
    Record,
    checked_white,
    resolved_root,
    select_domains,
)
from domainnorm.data.datasets.class_files import ALLOW_HINT, ClassFiles
from domainnorm.data.datasets.drawing import write_objects, write_scenes
from domainnorm.data.datasets.folder import classes_of_sample
from domainnorm.data.folders import Cuts, check_listed
from domainnorm.data.manifest import Manifest as Table
from domainnorm.data.manifest import write_manifest
from domainnorm.data.masks import read_classes
from domainnorm.data.table import Row
from domainnorm.errors import DataError, unknown
from domainnorm.registry import register


class TabledDataset(FileDataset, abc.ABC):
    """Images that a table lists.

    Args:
        root: Folder of the data, which paths in the table are relative to.
        table: Name of the table inside ``root``; ``.csv``, ``.tsv`` or ``.parquet``.
        columns: Your names of columns that have another name: ``{target: diagnosis}``.
        domains: Domains to use, in this order; null for all.
        val_fraction: Share of the training images to validate on, in (0, 1).
        test_fraction: Share of all images to test on when there is no split column, in (0, 1).
        split_seed: Seed of drawn splits.
        white: Pixel value of 16-bit images that is white, 256 to 65535; 4095 for 12 bits.

    Raises:
        DataError: The table, a column, a file or a class is missing, or a line is wrong; the
            message names it.
    """

    table: Path
    targets_are_classes: bool = True

    def __init__(
        self,
        *,
        root: str,
        table: str = "manifest.csv",
        columns: dict[str, str] | None = None,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.3,
        split_seed: int = 0,
        white: int = 65535,
    ) -> None:
        self.root = resolved_root(root)
        self.white = checked_white(white)
        cuts = Cuts(val_fraction, test_fraction, split_seed)
        self.prepare()
        self.table = self.root / table
        rows = Table(self.table, columns or {}, cuts, classes=self.targets_are_classes).rows()
        known = sorted({row.domain for row in rows})
        self.domain_names = select_domains(DOMAIN_KEYS, domains, known)
        self.take(rows)
        masks = [record.mask for record in self.records if record.mask]
        check_listed(self.root, [*(record.file for record in self.records), *masks], self.table)

    def prepare(self) -> None:
        """Read what the root has beside images and table."""

    @abc.abstractmethod
    def take(self, rows: Sequence[Row]) -> None:
        """Set classes, and the records of the chosen domains.

        Args:
            rows: Images of all domains, with their splits.
        """


@register("manifest")
class Manifest(TabledDataset, ClassFiles):
    """Images with one class each, listed in any CSV, TSV or Parquet table.

    Columns are path, target (the class; empty for none), domain, split (train, val or test) and
    group; split and group may be absent. Further columns become metadata of the images. Where
    there is no split column, or no ``val`` row, splits are drawn as by the dataset ``folder``.

    See `TabledDataset` for the other keys.

    Args:
        allow_missing_classes: Accept a domain without training images of a class that another
            domain has, for rare classes and found domains, or no class at all, for tasks that read
            none, which need not set it. Misspelled classes then go unnoticed.
        options: Keys of `TabledDataset`.
    """

    layout = "<table> with the columns path,target,domain,split,group, and the images it lists"

    def __init__(self, *, allow_missing_classes: bool = False, **options: Any) -> None:
        self._allow_missing = allow_missing_classes
        super().__init__(**options)

    def take(self, rows: Sequence[Row]) -> None:
        """Classes are the targets of the chosen domains."""
        self._fill(rows, self.domain_names, self.domain_names)
        if not self.class_names and not self._allow_missing:
            raise DataError(
                f"{self.table}: no image of {', '.join(self.domain_names)} has a target"
            )
        self._check_classes(self._allow_missing, ALLOW_HINT)

    @classmethod
    def write_sample(
        cls, root: Path, *, seed: int = 0, domains: Sequence[str] = ("shop_a", "shop_b")
    ) -> None:
        """Four kinds of objects from two shops, with the hour of each picture."""
        kinds, folder = ["bus", "car", "cup", "dog"], root / "images"
        rows = [
            replace(row, file=f"images/{row.file}", metadata={"hour": str(8 + number % 12)})
            for domain in domains
            for number, row in enumerate(write_objects(folder, domain, kinds, seed))
        ]
        write_manifest(root / "manifest.csv", rows)


@register("manifest_masks")
class ManifestMasks(TabledDataset, MaskFiles):
    """Images with one mask each, listed in any CSV, TSV or Parquet table.

    The column target holds the path of the mask (empty for none). A mask is a PNG with the class
    number of each pixel (255 for no class), or its colour. ``classes.txt`` beside the table names
    the classes, one per line, and their colours. Other columns are those of the dataset
    ``manifest``. See `TabledDataset` for the keys.
    """

    task = "segmentation"
    layout = "<table> with the columns path,target,domain,split,group; classes.txt; the files"
    targets_are_classes = False

    def prepare(self) -> None:
        """Read ``classes.txt``."""
        self._classes = read_classes(self.root / "classes.txt")
        self.class_names = self._classes.names

    def take(self, rows: Sequence[Row]) -> None:
        """Targets are the files of masks."""
        self.records = [
            replace(_unlabelled(row), mask=row.label or None)
            for row in rows
            if row.domain in self.domain_names
        ]

    @classmethod
    def write_sample(
        cls,
        root: Path,
        *,
        seed: int = 0,
        domains: Sequence[str] = ("camera_a", "camera_b"),
        among: Sequence[str] = (),
    ) -> None:
        """Images with masks, see `classes_of_sample`."""
        classes = classes_of_sample([*domains, *among])
        rows = [row for name in domains for row in write_scenes(root, name, len(classes), seed)]
        (root / "classes.txt").write_text("".join(classes))
        write_manifest(root / "manifest.csv", rows)


_VALUES = {"1": 1, "0": 0, "": -1, "-1": -1, "1.0": 1, "0.0": 0, "-1.0": -1, "True": 1, "False": 0}


@register("manifest_findings")
class ManifestFindings(TabledDataset):
    """Images with several findings each, listed in any CSV, TSV or Parquet table.

    Each finding has a column: 1 present, 0 absent, -1 or empty unknown. Other columns are those
    of the dataset ``manifest``, without target.

    See `TabledDataset` for the other keys.

    Args:
        findings: Columns of the findings, in this order; null takes every further column that
            holds only 1, 0, -1 and gaps.
        options: Keys of `TabledDataset`.
    """

    task = "multilabel"
    layout = "<table> with path,domain,split,group and a column per finding, and the images"

    def __init__(self, *, findings: list[str] | None = None, **options: Any) -> None:
        self._findings = findings
        super().__init__(**options)

    def take(self, rows: Sequence[Row]) -> None:
        """Findings are columns of the table."""
        self.class_names = _chosen(self._findings, rows, self.table)
        self.records = [
            replace(
                _unlabelled(row),
                labels=tuple(_value(row, name) for name in self.class_names),
                metadata={k: v for k, v in row.metadata.items() if k not in self.class_names},
            )
            for row in rows
            if row.domain in self.domain_names
        ]

    @classmethod
    def write_sample(
        cls, root: Path, *, seed: int = 0, domains: Sequence[str] = ("site_a", "site_b")
    ) -> None:
        """Vehicles and people, with what is seen on each picture."""
        kinds = {"bus": (1, 0), "car": (1, 0), "motorcycle": (1, 0), "person": (0, 1)}
        rows = []
        for domain in domains:
            for row in write_objects(root / "images", domain, list(kinds), seed):
                vehicle, person = kinds[row.label]
                seen = {"vehicle": vehicle, "person": "" if row.file.endswith("0.jpg") else person}
                found = {name: str(value) for name, value in seen.items()}
                rows.append(replace(row, file=f"images/{row.file}", label="", metadata=found))
        write_manifest(root / "manifest.csv", rows)


def _unlabelled(row: Row) -> Record:
    return Record(row.file, row.domain, UNLABELLED, row.group, row.split, metadata=row.metadata)


def _chosen(findings: Sequence[str] | None, rows: Sequence[Row], table: Path) -> list[str]:
    columns = list(rows[0].metadata)
    if findings is None:
        findings = [name for name in columns if all(row.metadata[name] in _VALUES for row in rows)]
    for name in findings:
        if name not in columns:
            raise DataError(f"data.findings: {unknown('column', name, columns)}")
    if not findings:
        raise DataError(
            f"{table}: no findings; name their columns with data.findings, of {', '.join(columns)}"
        )
    return list(findings)


def _value(row: Row, name: str) -> int:
    text = row.metadata[name]
    if text not in _VALUES:
        raise DataError(f"{row.file}: {name} is '{text}', expected 1, 0, -1 or nothing")
    return _VALUES[text]
