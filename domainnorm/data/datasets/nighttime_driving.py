"""Nighttime Driving, a test set."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from domainnorm.data.dataset import UNLABELLED, Record
from domainnorm.data.datasets.driving import DrivingDataset, found
from domainnorm.data.datasets.label_sets import TRAIN_IDS
from domainnorm.data.drawings.files import write_image
from domainnorm.data.drawings.street_files import streets
from domainnorm.data.drawings.weather import photograph
from domainnorm.registry import register

DOMAIN = "night"
IMAGES = "leftImg8bit/test/night"
MASKS = "gtCoarse_daytime_trainvaltest/test/night"


@register
class NighttimeDriving(DrivingDataset):
    """Nighttime Driving Test: 50 coarsely labelled images by night, 1920 × 1080, only for testing.

    Its domain has the name of Dark Zurich's, so that a ``join`` of the two trains on the images of
    one and tests on both.

    Args:
        root: The unpacked folder NighttimeDrivingTest: absolute, or relative to DOMAINNORM_DATA.
        domains: Domains to use; there is one, ``night``.
        classes: Label set of the masks.

    Raises:
        DataError: A folder, an image or a mask is missing, or a key is wrong.

    Reference:
        Dai, Van Gool, "Dark model adaptation: semantic image segmentation from daytime to
        nighttime", ITSC 2018, arXiv 1810.02575.
    """

    homepage = "https://people.ee.ethz.ch/~daid/NightDriving/"
    licence = "research"
    layout = "leftImg8bit/test/night/*_leftImg8bit.png, gtCoarse_daytime_trainvaltest/test/night/"
    values = TRAIN_IDS
    known = (DOMAIN,)
    mask_files = f"{MASKS}/*_gtCoarse_labelTrainIds.png"

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        classes: Literal[
            "cityscapes19", "cityscapes16", "cityscapes13", "camvid11"
        ] = "cityscapes19",
    ) -> None:
        super().__init__(root=root, domains=domains, classes=classes)

    def scan(self) -> list[Record]:
        """Records of all images, for testing."""
        records = []
        for file in found(self.root, f"{IMAGES}/*_leftImg8bit.png"):
            stem = Path(file).name.removesuffix("_leftImg8bit.png")
            mask = f"{MASKS}/{stem}_gtCoarse_labelTrainIds.png"
            known = {"time_of_day": "night"}
            records.append(Record(file, DOMAIN, UNLABELLED, stem, "test", mask, metadata=known))
        return records

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write drawn streets by night in the official layout."""
        for number, scene in enumerate(streets(seed, "nighttime_driving", 4)):
            name = f"0_frame_{number:04d}"
            image = photograph(scene, "night", "dashcam")
            write_image(root / IMAGES / f"{name}_leftImg8bit.png", image)
            write_image(root / MASKS / f"{name}_gtCoarse_labelTrainIds.png", scene.mask)
