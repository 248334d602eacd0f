"""GTA5, streets of a computer game."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import UNLABELLED, VOID, Record
from domainnorm.data.decode import read_size
from domainnorm.data.drawings.street_files import inverted, streets, write_image
from domainnorm.data.drawings.weather import photograph
from domainnorm.data.driving import DrivingDataset, check_masks, found
from domainnorm.data.label_sets import CITYSCAPES_IDS
from domainnorm.data.official import draw_test, draw_validation
from domainnorm.registry import register

DOMAIN = "gta5"
GROUP = 100  # neighbouring frames show the same drive


@register
class GTA5(DrivingDataset):
    """GTA5, also called "Playing for Data": 24,966 labelled images of a game, 1914 × 1052.

    All official images train in published work on adaptation, so splits are drawn here: test and
    validation images are runs of a hundred frames, since neighbours show the same drive. Of
    images whose label file has another size than they have (there are some), all pixels are void.

    Args:
        root: Folder that holds images and labels: absolute, or relative to DOMAINNORM_DATA.
        domains: Domains to use; there is one, ``gta5``.
        classes: Label set of the masks.
        test_fraction: Share of all images to test on, in (0, 1).
        val_fraction: Share of the other images to validate on, in (0, 1).
        split_seed: Seed of these draws.

    Raises:
        DataError: A folder, an image or a mask is missing, or a key is wrong.

    Reference:
        Richter, Vineet, Roth, Koltun, "Playing for data: ground truth from computer games",
        ECCV 2016, arXiv 1608.02192.
    """

    homepage = "https://download.visinf.tu-darmstadt.de/data/from_games/"
    licence = "research and education; the images are of a commercial game"
    layout = "images/<number>.png, labels/<number>.png"

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        classes: Literal[
            "cityscapes19", "cityscapes16", "cityscapes13", "camvid11"
        ] = "cityscapes19",
        test_fraction: float = 0.05,
        val_fraction: float = 0.05,
        split_seed: int = 0,
    ) -> None:
        super().__init__(root, classes, CITYSCAPES_IDS)
        records = [_record(file) for file in found(self.root, "images/*.png")]
        check_masks(self.root, records, "labels/*.png")
        records = draw_test(records, test_fraction, split_seed)
        self.keep(draw_validation(records, val_fraction, split_seed), domains, [DOMAIN])

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Classes of one record's pixels: (H, W), ``0 .. K - 1`` or 255 where there is none.

        Raises:
            DataError: The record has no mask or a file cannot be read.
        """
        mask = super().mask(index)
        size = read_size(self.root / self.records[index].file)
        return mask if mask.shape == size else np.full(size, VOID, np.uint8)

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write drawn streets in the colours of a game in the official layout."""
        for number, scene in enumerate(streets(seed, "gta5", 40)):
            # One frame in each run of a hundred, so that all splits get some.
            name = f"{GROUP * number + 1:05d}.png"
            write_image(root / "images" / name, photograph(scene, "day", "game"))
            write_image(root / "labels" / name, inverted(CITYSCAPES_IDS)[scene.mask])


def _record(file: str) -> Record:
    stem = Path(file).stem
    group = f"{int(stem) // GROUP:03d}" if stem.isdecimal() else stem
    return Record(file, DOMAIN, UNLABELLED, group, "train", file.replace("images/", "labels/", 1))
