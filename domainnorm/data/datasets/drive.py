"""DRIVE: retinal vessels, 40 photographs of a Canon CR5."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from domainnorm.data.dataset import Record
from domainnorm.data.datasets.retina import VesselDataset
from domainnorm.data.drawings.fundus import write_vessels
from domainnorm.data.official import draw_test, list_files, require_file
from domainnorm.errors import DataError
from domainnorm.registry import register


@register
class Drive(VesselDataset):
    """Vessels in 40 photographs of 565 × 584 pixels (Canon CR5, 45° field of view), 7 with disease.

    The official halves are used: 20 images for training, of which a validation split is drawn,
    and 20 for testing with the first observer's vessels. Fields of view are shipped.

    Args:
        split: ``official`` needs ``test/1st_manual``, which the present download withholds;
            ``training`` takes the 20 training images alone and draws 30 % of them for testing.
        kwargs: ``root``, ``domains``, ``val_fraction``, ``split_seed`` and ``fov`` of all
            datasets of vessels.

    Raises:
        DataError: A folder or a file is missing; the message names it.

    Reference:
        Staal et al., "Ridge-based vessel segmentation in color images of the retina", IEEE TMI
        23(4), 2004.
    """

    homepage = "https://drive.grand-challenge.org"
    licence = "CC BY 4.0; registration"
    layout = "{training,test}/{images,1st_manual,mask}/ with tif images, gif masks"
    domain = "drive"

    def __init__(
        self, *, split: Literal["official", "training"] = "official", **kwargs: Any
    ) -> None:
        self._split = split
        super().__init__(**kwargs)

    def _listed(self) -> list[Record]:
        training = self._half("training", "train")
        if self._split == "training":
            return draw_test(training, 0.3, self.split_seed)
        if not (self.root / "test/1st_manual").is_dir():
            raise DataError(
                f"{self.root / 'test/1st_manual'}: no such folder; the present download withholds "
                "the test labels: set data.split to 'training', or add them from an older one"
            )
        return training + self._half("test", "test")

    def _half(self, half: str, split: Literal["train", "test"]) -> list[Record]:
        folder = self.root / half
        images = list_files(folder / "images", ".tif", layout=self.layout)
        return [
            self._record(
                image,
                require_file(folder / "1st_manual" / f"{image.name[:2]}_manual1.gif", image),
                image.name[:2],
                split,
            )
            for image in images
        ]

    def _field_of_view(self, record: Record) -> Path:
        image = self.root / record.file
        return require_file(image.parents[1] / "mask" / f"{image.stem}_mask.gif", image)

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write 14 drawn photographs of 106 × 96 pixels in the official layout."""
        names = [
            (half, number)
            for half, first, count in (("training", 21, 10), ("test", 1, 4))
            for number in range(first, first + count)
        ]
        write_vessels(
            [
                (
                    root / half / "images" / f"{number:02d}_{half}.tif",
                    root / half / "1st_manual" / f"{number:02d}_manual1.gif",
                    root / half / "mask" / f"{number:02d}_{half}_mask.gif",
                )
                for half, number in names
            ],
            camera="drive",
            size=(106, 96),
            seed=seed,
        )
