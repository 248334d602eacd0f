"""Chest X-rays of several sites with the findings they have in common."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from domainnorm.data.dataset import (
    DOMAIN_KEYS,
    FileDataset,
    Record,
    Split,
    checked_white,
    resolved_root,
    select_domains,
)
from domainnorm.data.datasets.chest_manifests import (
    ABSENT,
    FINDINGS,
    PRESENT,
    UNCERTAIN,
    UNKNOWN,
    UNMENTIONED,
    Study,
    read_manifest,
)
from domainnorm.data.drawings.files import write_image
from domainnorm.data.drawings.xray import DEVICES, draw_chest
from domainnorm.data.images import SUFFIXES
from domainnorm.data.official import draw_test, draw_validation
from domainnorm.data.refusals import refuse
from domainnorm.errors import DataError, counted
from domainnorm.registry import register


@register
class ChestXray(FileDataset):
    """Seven findings in chest X-rays, each folder of the root a site and a domain.

    A site has the table of CheXpert, NIH ChestX-ray14 or PadChest, or one of its own in the
    columns of one of these; the columns tell which. Findings: atelectasis, cardiomegaly,
    consolidation, edema, effusion, pneumonia, pneumothorax. NIH tests on ``test_list.txt``,
    CheXpert on ``valid.csv`` (its test set is withheld); where a site has neither, a test split
    is drawn. Validation splits are drawn. Lateral views are left out. An
    image that tables list several times is read once, and has to be the same in all. A group is a
    patient of a site.

    Args:
        root: Folder of the data: absolute, or relative to the folder that the environment
            variable DOMAINNORM_DATA names (``data`` when it is not set).
        domains: Domains to use, in this order; every folder with a known table when None.
        val_fraction: Share of the training images to validate on, in (0, 1).
        test_fraction: Share of a site's images to test on where it has no test set, in (0, 1).
        split_seed: Seed of drawn splits.
        uncertain: What a finding is that CheXpert holds uncertain (-1): ``unknown`` takes it out
            of loss and metrics.
        unmentioned: What a finding is that CheXpert leaves empty.
        missing: ``error`` refuses tables that list absent images, ``skip`` reads those present,
            for downloads in parts.
        white: Value of 16-bit files that is shown as white; 4095 where they hold 12 bits.

    Raises:
        DataError: A table, image or site is missing, or a table is wrong; the message names it.

    Reference:
        Irvin et al., "CheXpert", AAAI 2019, arXiv:1901.07031; Wang et al., "ChestX-ray8", CVPR
        2017, arXiv:1705.02315; Bustos et al., "PadChest", MedIA 66, 2020, arXiv:1901.07441.
    """

    task = "multilabel"
    homepage = (
        "https://nihcc.app.box.com/v/ChestXray-NIHCC, "
        "https://stanfordmlgroup.github.io/competitions/chexpert/, "
        "https://bimcv.cipf.es/bimcv-projects/padchest/"
    )
    licence = "research use, registration; each site's own terms"
    layout = "<site>/ with Data_Entry_2017*.csv, CheXpert-*/train.csv or PADCHEST_*.csv, and images"

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.2,
        split_seed: int = 0,
        uncertain: Literal["unknown", "positive", "negative"] = "unknown",
        unmentioned: Literal["unknown", "negative"] = "negative",
        missing: Literal["error", "skip"] = "error",
        white: int = 65535,
    ) -> None:
        self.root = resolved_root(root)
        self.white = checked_white(white)
        self.class_names = list(FINDINGS)
        meaning = {"unknown": UNKNOWN, "positive": PRESENT, "negative": ABSENT}
        self._meaning = {UNCERTAIN: meaning[uncertain], UNMENTIONED: meaning[unmentioned]}
        self._missing = missing
        sites = {
            entry.name: _tables(entry) for entry in sorted(self.root.iterdir()) if entry.is_dir()
        }
        known = [name for name, tables in sites.items() if tables]
        if not known:
            raise DataError(
                f"{self.root}: no folder has a table in known columns; expected {self.layout} "
                "(docs/data_medical.md)"
            )
        self.domain_names = select_domains(DOMAIN_KEYS, domains, known)
        records = [record for name in self.domain_names for record in self._site(name, sites[name])]
        records = draw_test(records, test_fraction, split_seed)
        self.records = draw_validation(records, val_fraction, split_seed)

    def _site(self, site: str, tables: list[Path]) -> list[Record]:
        folder = self.root / site
        images = _images(folder)
        tested = _tested(folder)
        absent, differing = [], []
        read: dict[str, tuple[Record, Path]] = {}
        for table in tables:
            for study in read_manifest(table) or ():
                if not study.frontal:
                    continue
                file = _found(images, study.path)
                if file is None:
                    absent.append(f"{study.path} ({table})")
                    continue
                test = table.stem == "valid" or file.rpartition("/")[2] in tested
                record = self._record(site, file, study, "test" if test else "train")
                first, other = read.setdefault(file, (record, table))
                if replace(first, metadata=record.metadata) != record:
                    differing.append(f"{file} in {other} and {table}")
        if differing:
            refuse(
                f"{folder}: {counted(len(differing), 'image')} listed again with other findings, "
                f"patient or split, the first is {differing[0]}; keep one of the tables"
            )
        if absent and (self._missing == "error" or not read):
            refuse(
                f"{folder}: {len(absent)} images are listed but absent, the first is {absent[0]}; "
                "unpack all archives, or set data.missing to 'skip'"
            )
        return [record for record, _ in read.values()]

    def _record(self, site: str, file: str, study: Study, split: Split) -> Record:
        return Record(
            f"{site}/{file}",
            site,
            -1,
            f"{site}/{study.patient}",
            split,
            labels=tuple(self._meaning.get(value, value) for value in study.findings),
            metadata=study.metadata,
        )

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write 72 drawn chests of 96 × 96 pixels, 24 in each of three official layouts."""
        tables: list[list[tuple[str, ...]]] = [[], [], []]
        for site, device in enumerate(DEVICES):
            for number in range(1, 25):
                generator = np.random.default_rng([seed, site, number])
                # One finding in turn, so that each is in every split, and some by chance.
                drawn = generator.random(len(FINDINGS)) < 0.2
                drawn[number % len(FINDINGS)] = True
                found = [name for name, is_in in zip(FINDINGS, drawn, strict=True) if is_in]
                path, row = _LINES[site](number, found)
                write_image(root / path, draw_chest(generator, device, 96, found))
                tables[site].append(row)
        nih, chexpert, padchest = tables
        _write(root / "nih/Data_Entry_2017.csv", [_NIH_COLUMNS, *nih])
        listed = "\n".join(row[0] for row in nih[18:]) + "\n"
        (root / "nih/test_list.txt").write_text(listed, encoding="utf-8")
        folder = root / "chexpert/CheXpert-v1.0-small"
        _write(folder / "train.csv", [_CHEXPERT_COLUMNS, *chexpert[:18]])
        _write(folder / "valid.csv", [_CHEXPERT_COLUMNS, *chexpert[18:]])
        name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
        _write(root / "padchest" / name, [_PADCHEST_COLUMNS, *padchest])


def _tables(site: Path) -> list[Path]:
    return [
        table
        for pattern in ("*.csv", "*/*.csv")
        for table in sorted(site.glob(pattern))
        if table.name[0] != "." and read_manifest(table) is not None
    ]


def _images(site: Path) -> dict[str, str]:
    """Path below the site by file name, and by name and folders where names repeat."""
    found: dict[str, str] = {}
    for file in _files(site):
        relative = file.relative_to(site).as_posix()
        parts = relative.split("/")
        for start in range(len(parts)):
            found.setdefault("/".join(parts[start:]), relative)
    return found


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)


def _found(images: dict[str, str], path: str) -> str | None:
    """The file that a table means: its path, or that without CheXpert's folder of the release."""
    return images.get(path) or images.get(path.partition("/")[2]) or None


def _tested(site: Path) -> set[str]:
    file = site / "test_list.txt"
    return set(file.read_text(encoding="utf-8").split()) if file.is_file() else set()


_NIH_COLUMNS = (
    "Image Index",
    "Finding Labels",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
)
_CHEXPERT_COLUMNS = (
    "Path",
    "Sex",
    "Age",
    "Frontal/Lateral",
    "AP/PA",
    *("Pleural Effusion" if name == "effusion" else name.capitalize() for name in FINDINGS),
)
_PADCHEST_COLUMNS = ("ImageID", "ImageDir", "PatientID", "PatientSex_DICOM", "Projection", "Labels")


def _nih_line(number: int, found: list[str]) -> tuple[str, tuple[str, ...]]:
    name = f"{number:08d}_000.png"
    labels = "|".join(label.capitalize() for label in found)
    return f"nih/images_001/images/{name}", (name, labels, str(number), "050", "F", "PA")


def _chexpert_line(number: int, found: list[str]) -> tuple[str, tuple[str, ...]]:
    split = "train" if number <= 18 else "valid"
    path = f"CheXpert-v1.0-small/{split}/patient{number:05d}/study1/view1_frontal.jpg"
    # Of the absent ones some are uncertain and some not mentioned, as in the real table.
    absent = [
        "-1.0" if (number + k) % 5 == 0 else "" if (number + k) % 3 == 0 else "0.0"
        for k in range(7)
    ]
    values = ["1.0" if name in found else absent[k] for k, name in enumerate(FINDINGS)]
    return f"chexpert/{path}", (path, "Male", "60", "Frontal", "AP", *values)


def _padchest_line(number: int, found: list[str]) -> tuple[str, tuple[str, ...]]:
    name = f"{number:039d}_00-000-001.png"
    labels = ["pleural effusion" if label == "effusion" else label for label in found]
    return f"padchest/0/{name}", (name, "0", f"p{number}", "F", "PA", repr(labels))


_LINES = (_nih_line, _chexpert_line, _padchest_line)


def _write(file: Path, rows: list[tuple[str, ...]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
