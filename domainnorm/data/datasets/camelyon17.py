"""Camelyon17-WILDS: tumour or not in patches of lymph nodes, five hospitals."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from domainnorm.data.dataset import (
    DOMAIN_KEYS,
    FileDataset,
    Record,
    Split,
    resolved_root,
    select_domains,
)
from domainnorm.data.drawings.cells import HOSPITALS, draw_tissue
from domainnorm.data.drawings.files import write_image
from domainnorm.data.official import draw_test, draw_validation
from domainnorm.errors import DataError
from domainnorm.registry import register

COLUMNS = ("patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split")
TRAINING_HOSPITALS = ("0", "3", "4")  # WILDS validates on hospital 1 and tests on hospital 2


@register
class Camelyon17(FileDataset):
    """Tumour in the middle of 455,954 patches of 96 × 96 pixels; five hospitals are the domains.

    WILDS trains on hospitals 0, 3 and 4 (column ``split``: 0 training, 1 in-distribution
    validation, patches of the same slides), validates on hospital 1 and tests on hospital 2.
    ``split: patients`` cuts every hospital by patient into all three splits, so that any of them
    can be source or target; a patient's slides stay together, the slide is metadata.
    ``split: wilds`` is the official one: in hospitals 0, 3 and 4 the in-distribution patches
    validate and test by turns, hospitals 1 and 2 test in full, and no method can train on
    them (WILDS has other, unlabelled patches for that, a separate download). WILDS forbids batch
    statistics of the test hospital; results that use them are off-protocol.

    Args:
        root: Folder of the data: absolute, or relative to the folder that the environment
            variable DOMAINNORM_DATA names (``data`` when it is not set).
        domains: Domains to use, in this order, ``hospital_0`` to ``hospital_4``; all when None.
        val_fraction: Share of the training images to validate on, in (0, 1).
        test_fraction: Share of a hospital's images to test on, in (0, 1).
        split_seed: Seed of drawn splits.
        split: ``patients`` or ``wilds``.

    Raises:
        DataError: The table is missing or lacks a column or a hospital; the message names it.

    Reference:
        Bándi et al., IEEE TMI 38(2), 2019; Koh et al., "WILDS", ICML 2021, arXiv:2012.07421.
    """

    task = "classification"
    homepage = "https://wilds.stanford.edu/datasets/#camelyon17"
    licence = "CC0"
    layout = "metadata.csv, patches/patient_004_node_4/patch_patient_004_node_4_x_3328_y_21792.png"

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.3,
        split_seed: int = 0,
        split: Literal["patients", "wilds"] = "patients",
    ) -> None:
        self.root = resolved_root(root)
        self.class_names = ["normal", "tumour"]
        known = [f"hospital_{number}" for number in range(len(HOSPITALS))]
        self.domain_names = select_domains(DOMAIN_KEYS, domains, known)
        chosen = {name[-1] for name in self.domain_names}
        rows = [row for row in _read(self.root / "metadata.csv") if row["center"] in chosen]
        splits: list[Split] = ["train"] * len(rows)
        if split == "wilds":
            splits = _official(rows)
        records = [_record(row, part) for row, part in zip(rows, splits, strict=True)]
        if split == "patients":
            records = draw_test(records, test_fraction, split_seed)
            records = draw_validation(records, val_fraction, split_seed)
        self.records = records
        self._check()

    def _check(self) -> None:
        for domain in self.domain_names:
            first = next((record for record in self.records if record.domain == domain), None)
            if first is None:
                raise DataError(f"{self.root / 'metadata.csv'}: no patch of '{domain}'")
            if not (self.root / first.file).is_file():
                raise DataError(
                    f"{self.root / first.file}: listed in metadata.csv but missing; unpack the "
                    f"whole archive: {self.layout} (docs/data_medical.md)"
                )

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write 160 drawn patches of 48 × 48 pixels, 8 slides of each hospital."""
        rows: list[tuple[str, ...]] = [("", *COLUMNS)]
        for slide in range(8 * len(HOSPITALS)):
            hospital, patient, node = slide % 5, f"{slide:03d}", slide % 4
            for number in range(4):
                generator = np.random.default_rng([seed, slide, number])
                tumour, x, y = number % 2, 32 * number, 32 * slide
                pixels = draw_tissue(generator, HOSPITALS[hospital], 48, tumour=bool(tumour))
                row = (patient, node, x, y, tumour, slide, hospital, int(number == 3))
                rows.append((str(len(rows) - 1), *map(str, row)))
                write_image(root / _file(dict(zip(COLUMNS, rows[-1][1:], strict=True))), pixels)
        with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)


def _read(table: Path) -> Iterator[dict[str, str]]:
    if not table.is_file():
        raise DataError(
            f"{table}: missing; expected below data.root: {Camelyon17.layout} "
            "(docs/data_medical.md)"
        )
    with table.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(
                f"{table}: column {', '.join(missing)} missing; this is not the table of "
                "Camelyon17-WILDS 1.0"
            )
        yield from reader


def _record(row: dict[str, str], split: Split) -> Record:
    return Record(
        _file(row),
        f"hospital_{row['center']}",
        int(row["tumor"]),
        f"camelyon17/patient_{row['patient']}",
        split,
        metadata={"slide": row["slide"]},
    )


def _file(row: dict[str, str]) -> str:
    slide = f"patient_{row['patient']}_node_{row['node']}"
    return f"patches/{slide}/patch_{slide}_x_{row['x_coord']}_y_{row['y_coord']}.png"


def _official(rows: list[dict[str, str]]) -> list[Split]:
    """Splits of WILDS, with the in-distribution patches of a hospital dealt out by turns."""
    dealt = dict.fromkeys(TRAINING_HOSPITALS, 0)
    splits: list[Split] = []
    for row in rows:
        hospital = row["center"]
        if hospital not in dealt:
            splits.append("test")
        elif row["split"] == "0":
            splits.append("train")
        else:
            splits.append("val" if dealt[hospital] % 2 else "test")
            dealt[hospital] += 1
    return splits
