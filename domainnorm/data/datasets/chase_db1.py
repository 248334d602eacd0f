"""CHASE_DB1: retinal vessels of 14 children, both eyes."""

from __future__ import annotations

from pathlib import Path

from domainnorm.data.dataset import Record
from domainnorm.data.datasets.retina import VesselDataset
from domainnorm.data.drawings.fundus import write_vessels
from domainnorm.data.official import list_files, require_file
from domainnorm.errors import DataError
from domainnorm.registry import register

FIRST_TEST_CHILD = 11


@register
class ChaseDb1(VesselDataset):
    """Vessels in 28 photographs of 999 × 960 pixels (Nidek NM-200-D), both eyes of 14 children.

    Labels are the first observer's (``_1stHO``); a group is a child. There is no official split:
    as elsewhere, children 1 to 10 (20 images) train and 11 to 14 (8 images) test; a validation
    split is drawn from the former. No field of view is shipped, so ``fov`` changes nothing.

    Raises:
        DataError: The folder or a file is missing or has another name; the message names it.

    Reference:
        Fraz et al., "An ensemble classification-based approach applied to retinal blood vessel
        segmentation", IEEE TBME 59(9), 2012.
    """

    homepage = "https://researchdata.kingston.ac.uk/96/"
    licence = "CC BY 4.0"
    layout = "Image_01L.jpg, Image_01L_1stHO.png, all in one folder"
    domain = "chase_db1"

    def _listed(self) -> list[Record]:
        images = list_files(self.root, ".jpg", layout=self.layout)
        return [
            self._record(
                image,
                require_file(image.with_name(f"{image.stem}_1stHO.png"), image),
                f"child_{child:02d}",
                "train" if child < FIRST_TEST_CHILD else "test",
            )
            for image in images
            for child in [_child(image)]
        ]

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write 22 drawn photographs of 96 × 100 pixels, both eyes of 11 children."""
        stems = [f"Image_{child:02d}{eye}" for child in (*range(1, 10), 11, 12) for eye in "LR"]
        write_vessels(
            [(root / f"{stem}.jpg", root / f"{stem}_1stHO.png", None) for stem in stems],
            camera="chase_db1",
            size=(96, 100),
            seed=seed,
        )


def _child(image: Path) -> int:
    number = image.stem.removeprefix("Image_")[:-1]
    if not number.isdigit():
        raise DataError(f"{image}: expected names such as Image_01L.jpg; move other files away")
    return int(number)
