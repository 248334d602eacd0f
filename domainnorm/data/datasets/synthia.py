"""SYNTHIA-RAND-CITYSCAPES."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import UNLABELLED, Record
from domainnorm.data.drawings.street_files import inverted, streets, write_image
from domainnorm.data.drawings.weather import photograph
from domainnorm.data.driving import DrivingDataset, check_masks, found
from domainnorm.data.label_sets import CITYSCAPES19, lookup
from domainnorm.data.official import draw_test, draw_validation
from domainnorm.errors import DataError
from domainnorm.registry import register

DOMAIN = "synthia"
# Numbers of its README; 13, 14 and 22 (parking slot, road work, lane marking) have no counterpart.
_NUMBERS = {
    "sky": 1,
    "building": 2,
    "road": 3,
    "sidewalk": 4,
    "fence": 5,
    "vegetation": 6,
    "pole": 7,
    "car": 8,
    "traffic sign": 9,
    "person": 10,
    "bicycle": 11,
    "motorcycle": 12,
    "traffic light": 15,
    "terrain": 16,
    "rider": 17,
    "truck": 18,
    "bus": 19,
    "train": 20,
    "wall": 21,
}
IDS = lookup({old: CITYSCAPES19.names.index(name) for name, old in _NUMBERS.items()})


@register
class Synthia(DrivingDataset):
    """SYNTHIA-RAND-CITYSCAPES: 9,400 rendered, labelled images, 1280 × 760.

    Views, light and traffic are random, so images are independent and splits are drawn from them.
    Results are usually given for the 16 or 13 classes that it has in common with Cityscapes
    (``classes: cityscapes16`` or ``cityscapes13``). A label file has three channels of 16 bits: the
    class, the number of the instance, and nothing.

    Args:
        root: Folder that holds RGB and GT: absolute, or relative to DOMAINNORM_DATA.
        domains: Domains to use; there is one, ``synthia``.
        classes: Label set of the masks.
        test_fraction: Share of all images to test on, in (0, 1).
        val_fraction: Share of the other images to validate on, in (0, 1).
        split_seed: Seed of these draws.

    Raises:
        DataError: A folder, an image or a mask is missing, or a key is wrong.

    Reference:
        Ros et al., "The SYNTHIA dataset: a large collection of synthetic images for semantic
        segmentation of urban scenes", CVPR 2016.
    """

    homepage = "https://synthia-dataset.net"
    licence = "CC BY-NC-SA 3.0"
    layout = "RGB/<number>.png, GT/LABELS/<number>.png"

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
        super().__init__(root, classes, IDS)
        records = [
            Record(file, DOMAIN, UNLABELLED, file, "train", file.replace("RGB/", "GT/LABELS/", 1))
            for file in found(self.root, "RGB/*.png")
        ]
        check_masks(self.root, records, "GT/LABELS/*.png")
        records = draw_test(records, test_fraction, split_seed)
        self.keep(draw_validation(records, val_fraction, split_seed), domains, [DOMAIN])

    def read_values(self, file: Path) -> NDArray[np.uint8]:
        """The first channel of a label file, (H, W).

        Raises:
            DataError: The file is missing, no image, or has another number of channels.
        """
        # Pillow cuts 16-bit colours down to 8 bits, which would make every class 0.
        data = np.fromfile(file, np.uint8) if file.is_file() else np.empty(0, np.uint8)
        channels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
        if channels is None or channels.ndim != 3 or channels.shape[2] != 3:
            raise DataError(
                f"{file}: not a label file of SYNTHIA, a PNG whose three channels are the class, "
                "the instance and nothing; GT/COLOR is something else"
            )
        red: NDArray[np.uint8] = np.minimum(channels[..., 2], 255).astype(np.uint8)
        return red

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write drawn streets in flat colours in the official layout."""
        for number, scene in enumerate(streets(seed, "synthia", 40)):
            name = f"{number:07d}.png"
            write_image(root / "RGB" / name, photograph(scene, "day", "render"))
            label = np.zeros((*scene.mask.shape, 3), np.uint16)
            label[..., 0] = inverted(IDS)[scene.mask]
            write_image(root / "GT/LABELS" / name, label)
