"""HRF: retinal vessels at high resolution, 45 photographs of a Canon CR-1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from domainnorm.data.dataset import Record
from domainnorm.data.datasets.retina import VesselDataset
from domainnorm.data.drawings.fundus import write_vessels
from domainnorm.data.official import list_files, require_file
from domainnorm.errors import DataError
from domainnorm.registry import register

LAST_TRAINING = 5
DIAGNOSES = {"h": "healthy", "dr": "diabetic_retinopathy", "g": "glaucoma"}


@register
class Hrf(VesselDataset):
    """Vessels in 45 photographs of 3504 × 2336 pixels (Canon CR-1, 45°).

    15 each are of healthy eyes, diabetic retinopathy and glaucoma: metadata ``diagnosis``. There
    is no official split: as in Orlando et al. (IEEE TBME 64(1), 2017) images 1 to 5 of each
    diagnosis train and 6 to 15 test; a validation split is drawn from the former. Fields of view
    are shipped.

    Raises:
        DataError: A folder or a file is missing or has another name; the message names it.

    Reference:
        Budai et al., "Robust vessel segmentation in fundus images", Int. J. Biomedical Imaging,
        2013.
    """

    homepage = "https://www5.cs.fau.de/research/data/fundus-images/"
    licence = "CC BY 4.0"
    layout = "images/01_h.jpg, manual1/01_h.tif, mask/01_h_mask.tif; h, dr and g"
    domain = "hrf"

    def _listed(self) -> list[Record]:
        return [
            self._photograph(image)
            for image in list_files(self.root / "images", ".jpg", layout=self.layout)
        ]

    def _photograph(self, image: Path) -> Record:
        number, _, diagnosis = image.stem.partition("_")
        if not number.isdigit() or diagnosis not in DIAGNOSES:
            raise DataError(f"{image}: expected names such as 01_h.jpg, 01_dr.JPG and 01_g.jpg")
        vessels = require_file(self.root / "manual1" / f"{image.stem}.tif", image)
        split: Literal["train", "test"] = "train" if int(number) <= LAST_TRAINING else "test"
        record = self._record(image, vessels, image.stem, split)
        return replace(record, metadata={"diagnosis": DIAGNOSES[diagnosis]})

    def _field_of_view(self, record: Record) -> Path:
        image = self.root / record.file
        return require_file(self.root / "mask" / f"{image.stem}_mask.tif", image)

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write 15 drawn photographs of 80 × 120 pixels in the official layout."""
        stems = [f"{number:02d}_{kind}" for kind in DIAGNOSES for number in (1, 2, 3, 6, 7)]
        write_vessels(
            [
                (
                    # The official archive has these names, upper-case suffix included.
                    root / "images" / f"{stem}.{'JPG' if stem.endswith('dr') else 'jpg'}",
                    root / "manual1" / f"{stem}.tif",
                    root / "mask" / f"{stem}_mask.tif",
                )
                for stem in stems
            ],
            camera="hrf",
            size=(80, 120),
            seed=seed,
        )
