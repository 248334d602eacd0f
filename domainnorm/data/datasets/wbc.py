"""White blood cells under two stains, in the layout of the authors' repository."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import DOMAIN_KEYS, FileDataset, Record, resolved_root, select_domains
from domainnorm.data.drawings.cells import STAINS, draw_blood_cell
from domainnorm.data.drawings.files import write_image
from domainnorm.data.official import draw_test, draw_validation, list_files, read_grey, require_file
from domainnorm.data.refusals import refuse
from domainnorm.errors import DataError
from domainnorm.registry import register

FOLDERS = {"tecom_rapid": "Dataset 1", "cellavision": "Dataset 2"}
KINDS = {"1": "neutrophil", "2": "lymphocyte", "3": "monocyte", "4": "eosinophil", "5": "basophil"}
_GREYS = np.array([0, 128, 255], np.uint8)  # background, cytoplasm, nucleus


@register
class WhiteBloodCells(FileDataset):
    """Cytoplasm and nucleus of white blood cells: ``tecom_rapid`` (300) and ``cellavision`` (100).

    ``Dataset 1`` (Jiangxi Tecom, rapid stain, 120 × 120 pixels) and ``Dataset 2`` (CellaVision
    blog, 300 × 300). Masks are black, grey and white. Test and validation splits are drawn, as
    much of every kind of cell in each; the kind is metadata ``cell``, which the authors did not
    have checked by experts. Every image is its own group.

    Args:
        root: Folder of the repository: absolute, or relative to the folder that the environment
            variable DOMAINNORM_DATA names (``data`` when it is not set).
        domains: Domains to use, in this order; both when None.
        val_fraction: Share of the training images to validate on, in (0, 1).
        test_fraction: Share of all images to test on, in (0, 1).
        split_seed: Seed of drawn splits.

    Raises:
        DataError: A folder, a file or a label is missing; the message names it.

    Reference:
        Zheng et al., "Fast and robust segmentation of white blood cell images by self-supervised
        learning", Micron 107, 2018.
    """

    task = "segmentation"
    homepage = "https://github.com/zxaoyou/segmentation_WBC"
    licence = "GPL-3.0"
    layout = "Dataset {1,2}/001.bmp and 001.png, Class Labels of Dataset {1,2}.csv"

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.3,
        split_seed: int = 0,
    ) -> None:
        self.root = resolved_root(root)
        self.class_names = ["background", "cytoplasm", "nucleus"]
        self.domain_names = select_domains(DOMAIN_KEYS, domains, list(FOLDERS))
        records = [record for name in self.domain_names for record in self._listed(name)]
        records = draw_test(records, test_fraction, split_seed, stratum="cell")
        self.records = draw_validation(records, val_fraction, split_seed, stratum="cell")

    @property
    def class_colours(self) -> list[tuple[int, int, int]]:
        """Black, light blue and violet."""
        return [(0, 0, 0), (120, 200, 240), (130, 60, 190)]

    def _listed(self, domain: str) -> list[Record]:
        folder = self.root / FOLDERS[domain]
        kinds = _read_kinds(self.root / f"Class Labels of {folder.name}.csv")
        records = []
        for image in list_files(folder, ".bmp", layout=self.layout):
            if image.stem not in kinds:
                refuse(
                    f"{self.root / f'Class Labels of {folder.name}.csv'}: no row for image "
                    f"{image.stem}; restore the table from the repository"
                )
                continue
            mask = require_file(image.with_suffix(".png"), image)
            name = f"{folder.name}/{image.name}"
            records.append(
                Record(
                    name,
                    domain,
                    -1,
                    name,
                    "train",
                    mask=f"{folder.name}/{mask.name}",
                    metadata={"cell": kinds[image.stem]},
                )
            )
        return records

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Classes of one record's pixels: (H, W), 0 background, 1 cytoplasm, 2 nucleus.

        Raises:
            DataError: The record has no mask, or its file cannot be read; the message names it.
        """
        record = self.records[index]
        if record.mask is None:
            raise DataError(f"{record.file}: no mask is known for this image")
        grey = read_grey(self.root / record.mask)
        return np.where(grey < 64, 0, np.where(grey < 192, 1, 2)).astype(np.uint8)

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write 40 drawn cells of 96 × 96 pixels in the official layout."""
        for stream, (domain, name) in enumerate(FOLDERS.items()):
            rows = ["image ID,class label"]
            for number in range(1, 21):
                generator = np.random.default_rng([seed, stream, number])
                kind = number % 2  # neutrophils have lobes, lymphocytes a round nucleus
                image, classes = draw_blood_cell(
                    generator, STAINS[domain], 96, lobes=3 if kind == 0 else 1
                )
                write_image(root / name / f"{number:03d}.bmp", image)
                write_image(root / name / f"{number:03d}.png", _GREYS[classes])
                rows.append(f"{number},{kind + 1}")
            (root / f"Class Labels of {name}.csv").write_text("\n".join(rows) + "\n")


def _read_kinds(table: Path) -> dict[str, str]:
    """Kind of cell by the stem of the image."""
    if not table.is_file():
        raise DataError(f"{table}: missing; it is part of the repository (docs/data_medical.md)")
    with table.open(newline="", encoding="utf-8-sig") as stream:
        rows = [row for row in csv.reader(stream) if row]
    try:
        return {f"{int(number):03d}": KINDS[kind.strip()] for number, kind in rows[1:]}
    except (KeyError, ValueError) as error:
        raise DataError(
            f"{table}: expected rows such as '1,2', an image and a label 1 to 5, got {error}"
        ) from None
