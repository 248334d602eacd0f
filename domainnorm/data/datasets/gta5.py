"""GTA5, streets of a computer game."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import UNLABELLED, Record
from domainnorm.data.datasets.driving import RenderedDataset, found
from domainnorm.data.datasets.label_sets import CITYSCAPES_IDS
from domainnorm.data.drawings.files import write_image
from domainnorm.data.drawings.street_files import inverted, streets
from domainnorm.data.drawings.weather import photograph
from domainnorm.data.images import read_size
from domainnorm.data.masks import VOID
from domainnorm.registry import register

DOMAIN = "gta5"
GROUP = 100  # neighbouring frames show the same drive


@register
class GTA5(RenderedDataset):
    """GTA5, also called "Playing for Data": 24,966 labelled images of a game, 1914 × 1052.

    All official images train in published work on adaptation, so splits are drawn here: test and
    validation images are runs of a hundred frames, since neighbours show the same drive. Of
    images whose label file has another size than they have (there are some), all pixels are void.

    See `RenderedDataset` for the keys. ``root`` holds images and labels; there is one domain,
    ``gta5``.

    Reference:
        Richter, Vineet, Roth, Koltun, "Playing for data: ground truth from computer games",
        ECCV 2016, arXiv 1608.02192.
    """

    homepage = "https://download.visinf.tu-darmstadt.de/data/from_games/"
    licence = "research and education; the images are of a commercial game"
    layout = "images/<number>.png, labels/<number>.png"
    values = CITYSCAPES_IDS
    known = (DOMAIN,)
    mask_files = "labels/*.png"

    def scan(self) -> list[Record]:
        """Records of all images, for training."""
        return [_record(file) for file in found(self.root, "images/*.png")]

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
