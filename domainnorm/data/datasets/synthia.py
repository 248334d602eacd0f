"""SYNTHIA-RAND-CITYSCAPES."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import UNLABELLED, Record
from domainnorm.data.datasets.driving import RenderedDataset, found
from domainnorm.data.datasets.label_sets import CITYSCAPES19, lookup
from domainnorm.data.drawings.files import write_image
from domainnorm.data.drawings.street_files import inverted, streets
from domainnorm.data.drawings.weather import photograph
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
class Synthia(RenderedDataset):
    """SYNTHIA-RAND-CITYSCAPES: 9,400 rendered, labelled images, 1280 × 760.

    Views, light and traffic are random, so images are independent and splits are drawn from them.
    Results are usually given for the 16 or 13 classes that it has in common with Cityscapes
    (``classes: cityscapes16`` or ``cityscapes13``). A label file has three channels of 16 bits: the
    class, the number of the instance, and nothing.

    See `RenderedDataset` for the keys. ``root`` holds RGB and GT; there is one domain, ``synthia``.

    Reference:
        Ros et al., "The SYNTHIA dataset: a large collection of synthetic images for semantic
        segmentation of urban scenes", CVPR 2016.
    """

    homepage = "https://synthia-dataset.net"
    licence = "CC BY-NC-SA 3.0"
    layout = "RGB/<number>.png, GT/LABELS/<number>.png"
    values = IDS
    known = (DOMAIN,)
    mask_files = "GT/LABELS/*.png"

    def scan(self) -> list[Record]:
        """Records of all images, for training."""
        return [
            Record(file, DOMAIN, UNLABELLED, file, "train", file.replace("RGB/", "GT/LABELS/", 1))
            for file in found(self.root, "RGB/*.png")
        ]

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
