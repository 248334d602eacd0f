"""Microscopy: white blood cells under two stains, Camelyon17's lymph nodes of five hospitals."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from domainnorm.data.dataset import (
    Record,
    Split,
)
from domainnorm.data.datasets.drawing import draw_boxes, generator_of, write_image
from domainnorm.data.datasets.layout import GreyMasks, Layout, TestedDataset, nearest
from domainnorm.data.refusals import reading, refuse
from domainnorm.data.table import read_delimited
from domainnorm.errors import DataError
from domainnorm.registry import register

_KINDS = {"1": "neutrophil", "2": "lymphocyte", "3": "monocyte", "4": "eosinophil", "5": "basophil"}


@register("wbc")
class WhiteBloodCells(TestedDataset, GreyMasks):
    """Cytoplasm and nucleus of white blood cells: ``tecom_rapid`` (300) and ``cellavision`` (100).

    ``Dataset 1`` (Jiangxi Tecom, rapid stain, 120 × 120 pixels) and ``Dataset 2`` (CellaVision
    blog, 300 × 300). Masks are black, grey and white. Test and validation splits are drawn and
    stratified by the kind of cell. The kind is metadata ``cell``; experts have not checked it.
    Every image is its own group.

    See `TestedDataset` for the keys.

    Reference:
        Zheng et al., "Fast and robust segmentation of white blood cell images by self-supervised
        learning", Micron 107, 2018.
    """

    task = "segmentation"
    homepage = "https://github.com/zxaoyou/segmentation_WBC"
    licence = "GPL-3.0"
    layout = "Dataset {1,2}/001.bmp and 001.png, Class Labels of Dataset {1,2}.csv"
    files = tuple(
        Layout(
            f"{{folder:Dataset {number}}}/{{name}}.bmp",
            mask="{folder}/{name}.png",
            domain=domain,
            group="{folder}/{name}.bmp",
        )
        for number, domain in ((1, "tecom_rapid"), (2, "cellavision"))
    )
    known = ("tecom_rapid", "cellavision")
    class_names = ["background", "cytoplasm", "nucleus"]  # noqa: RUF012 - as the registry needs
    stratum = "cell"
    codes = (0, 128, 255)
    mask_lookup = nearest(codes)
    drawn_classes = 3
    nested = True
    examples = (("Dataset 1/{:03d}.bmp", range(1, 21)), ("Dataset 2/{:03d}.bmp", range(1, 21)))

    def layouts(self) -> Sequence[Layout]:
        """Those of the chosen domains."""
        return [layout for layout in self.files if layout.domain in self.domain_names]

    def scan(self) -> list[Record]:
        """Records of the chosen folders, with the kind of their cell."""
        return self._told(super().scan())

    @property
    def class_colours(self) -> list[tuple[int, int, int]]:
        """Black, light blue and violet."""
        return [(0, 0, 0), (120, 200, 240), (130, 60, 190)]

    def _told(self, records: list[Record]) -> list[Record]:
        """Records with the kind of their cell."""
        told = []
        kinds: dict[Path, dict[str, str]] = {}
        for record in records:
            image = Path(record.file)
            table = self.root / f"Class Labels of {image.parent}.csv"
            if table not in kinds:
                kinds[table] = _read_kinds(table)
            if image.stem not in kinds[table]:
                refuse(
                    f"{table}: no row for image {image.stem}; restore the table from the repository"
                )
                continue
            told.append(replace(record, metadata={"cell": kinds[table][image.stem]}))
        return told

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write drawn cells in the official layout, and what kind they are."""
        super().write_sample(root, seed=seed)
        rows = ["image ID,class label", *(f"{n},{n % 2 + 1}" for n in range(1, 21))]
        for number in (1, 2):
            (root / f"Class Labels of Dataset {number}.csv").write_text("\n".join(rows) + "\n")


def _read_kinds(table: Path) -> dict[str, str]:
    """Kind of cell by the stem of the image."""
    if not table.is_file():
        raise DataError(f"{table}: missing; it is part of the repository (docs/data_medical.md)")
    with (
        reading(table, "UTF-8 table", "get it again"),
        table.open(newline="", encoding="utf-8-sig") as stream,
    ):
        rows = [row for row in csv.reader(stream, strict=True) if row]
    try:
        return {f"{int(number):03d}": _KINDS[kind.strip()] for number, kind in rows[1:]}
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{table}: expected rows such as '1,2', an image and a label 1 to 5, got {error}"
        ) from None


COLUMNS = ("patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split")
_NUMBERS = {"tumor": ("0", "1"), "center": ("0", "1", "2", "3", "4"), "split": ("0", "1")}
TRAINING_HOSPITALS = ("0", "3", "4")  # WILDS validates on hospital 1 and tests on hospital 2


@register("camelyon17")
class Camelyon17(TestedDataset):
    """Camelyon17: tumour in 455,954 patches of 96 × 96 pixels; five hospitals are the domains.

    WILDS trains on hospitals 0, 3 and 4 (column ``split``: 0 training, 1 in-distribution
    validation, patches of the same slides), validates on hospital 1 and tests on hospital 2.
    ``split: patients`` cuts every hospital by patient into all three splits, so that any of them
    can be source or target; a patient's slides stay together, and the slide is metadata.
    ``split: wilds`` is the official split. In hospitals 0, 3 and 4 the in-distribution patches are
    in turn for validation and test. All of hospitals 1 and 2 is for test, so no method can train on
    them (WILDS has unlabelled patches for that, a separate download). WILDS forbids batch
    statistics of the test hospital; results that use them are off-protocol.

    See `TestedDataset` for the other keys.

    Args:
        split: ``patients`` or ``wilds``, see above.
        options: Keys of `TestedDataset`.

    Reference:
        Bándi et al., IEEE TMI 38(2), 2019; Koh et al., "WILDS", ICML 2021, arXiv:2012.07421.
    """

    task = "classification"
    homepage = "https://wilds.stanford.edu/datasets/#camelyon17"
    licence = "CC0"
    layout = "metadata.csv, patches/patient_004_node_4/patch_patient_004_node_4_x_3328_y_21792.png"
    known = tuple(f"hospital_{number}" for number in range(5))
    class_names = ["normal", "tumour"]  # noqa: RUF012 - a literal, as the registry needs

    def __init__(self, *, split: Literal["patients", "wilds"] = "patients", **options: Any) -> None:
        self._split = split
        super().__init__(**options)
        self._check()

    def scan(self) -> list[Record]:
        """Records of the chosen hospitals, all for training, or in the official splits."""
        chosen = {name[-1] for name in self.domain_names}
        rows = [row for row in _read(self.root / "metadata.csv") if row["center"] in chosen]
        official = self._split == "wilds"
        splits: list[Split] = _official(rows) if official else ["train"] * len(rows)
        return [_record(row, split) for row, split in zip(rows, splits, strict=True)]

    def draw(self, records: Sequence[Record], fraction: float, seed: int) -> list[Record]:
        """Draw test and validation images where the official splits are not used."""
        return list(records) if self._split == "wilds" else super().draw(records, fraction, seed)

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
        """Write four drawn patches each of 8 slides of each hospital."""
        rows: list[tuple[str, ...]] = [("", *COLUMNS)]
        for slide in range(40):
            hospital, patient, node = slide % 5, f"{slide:03d}", slide % 4
            for number in range(4):
                tumour, x, y = number % 2, 32 * number, 32 * slide
                row = (patient, node, x, y, tumour, slide, hospital, int(number == 3))
                rows.append((str(len(rows) - 1), *map(str, row)))
                file = _file(dict(zip(COLUMNS, rows[-1][1:], strict=True)))
                look = f"hospital_{hospital}"
                drawn = draw_boxes(generator_of(seed, file), [1 + tumour], look, (48, 48))
                write_image(root / file, drawn[0])
        with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)


def _read(table: Path) -> Iterator[dict[str, str]]:
    if not table.is_file():
        raise DataError(
            f"{table}: missing; expected below data.root: {Camelyon17.layout} "
            "(docs/data_medical.md)"
        )
    columns, lines = read_delimited(table)
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise DataError(
            f"{table}: column {', '.join(missing)} missing; this is not the table of "
            "Camelyon17-WILDS 1.0"
        )
    for number, row in lines:
        for name, known in _NUMBERS.items():
            if row[name] not in known:
                raise DataError(
                    f"{table}, line {number}: {name} '{row[name]}', expected {', '.join(known)}; "
                    "get the table again"
                )
        yield row


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
