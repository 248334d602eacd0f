"""STARE: retinal vessels, 20 digitized slides of a TopCon TRV-50."""

from __future__ import annotations

from pathlib import Path

from domainnorm.data.dataset import Record
from domainnorm.data.datasets.retina import VesselDataset
from domainnorm.data.drawings.fundus import write_vessels
from domainnorm.data.official import list_files, require_file
from domainnorm.registry import register

FIRST_TEST = 10  # images in the order of their names


@register
class Stare(VesselDataset):
    """Vessels in 20 slides of 700 × 605 pixels (TopCon TRV-50, 35° field of view), 10 with disease.

    Labels are those of Adam Hoover (``labels-ah``). There is no official split: as elsewhere, the
    first ten images in the order of their names train and the last ten test; a validation split
    is drawn from the former. No field of view is shipped, so ``fov`` changes nothing.

    Raises:
        DataError: A folder or a file is missing; the message names it.

    Reference:
        Hoover, Kouznetsova & Goldbaum, "Locating blood vessels in retinal images by piecewise
        threshold probing of a matched filter response", IEEE TMI 19(3), 2000.
    """

    homepage = "https://cecas.clemson.edu/~ahoover/stare/probing/index.html"
    licence = "not stated; research use"
    layout = "stare-images/im0001.ppm, labels-ah/im0001.ah.ppm, unpacked from .gz"
    domain = "stare"

    def _listed(self) -> list[Record]:
        images = list_files(self.root / "stare-images", ".ppm", layout=self.layout)
        return [
            self._record(
                image,
                require_file(self.root / "labels-ah" / f"{image.stem}.ah.ppm", image),
                image.stem,
                "train" if position < FIRST_TEST else "test",
            )
            for position, image in enumerate(images)
        ]

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write 13 drawn slides of 104 × 120 pixels in the official layout."""
        write_vessels(
            [
                (
                    root / "stare-images" / f"im{number:04d}.ppm",
                    root / "labels-ah" / f"im{number:04d}.ah.ppm",
                    None,
                )
                for number in range(1, 14)
            ],
            camera="stare",
            size=(104, 120),
            seed=seed,
        )
