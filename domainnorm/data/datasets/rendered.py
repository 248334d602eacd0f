"""Rendered driving scenes, GTA5 and SYNTHIA: no official splits, so test images are drawn, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.datasets.driving import DrivingDataset
from domainnorm.data.datasets.label_sets import CITYSCAPES19, CITYSCAPES_IDS, lookup
from domainnorm.data.datasets.layout import Layout, TestedDataset
from domainnorm.data.images import read_size
from domainnorm.data.masks import VOID, read_labels
from domainnorm.errors import DataError
from domainnorm.registry import register


class RenderedDataset(TestedDataset, DrivingDataset):
    """Rendered street scenes without official splits.

    Args:
        test_fraction: Share of all images to test on, in (0, 1).
        val_fraction: Share of the other images to validate on, in (0, 1).
        options: Other keys of `OfficialDataset`, and ``classes`` of `DrivingDataset`.
    """

    def __init__(
        self, *, test_fraction: float = 0.05, val_fraction: float = 0.05, **options: Any
    ) -> None:
        super().__init__(test_fraction=test_fraction, val_fraction=val_fraction, **options)


@register("gta5")
class GTA5(RenderedDataset):
    """GTA5, also called "Playing for Data": 24,966 labelled images of a game, 1914 × 1052.

    Published work on adaptation trains on all official images, so splits are drawn here. Test and
    validation images are runs of a hundred frames, since neighbours show the same drive. In some
    images the label file has another size than the image; all their pixels are void.

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
    known = ("gta5",)
    files = (
        Layout(
            "images/{number}.png",
            mask="labels/{number}.png",
            domain="gta5",
            group="{drive}",
            derived=lambda parts: {"drive": _hundred(parts["number"])},
        ),
    )
    # One frame in each run of a hundred, so that all splits get some.
    examples = (("images/{:05d}.png", range(1, 4000, 100)),)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Classes of one record's pixels: (H, W), ``0 .. K - 1`` or 255 where there is none."""
        mask = super().mask(index)
        size = read_size(self.root / self.records[index].file)
        return mask if mask.shape == size else np.full(size, VOID, np.uint8)


def _hundred(number: str) -> str:
    return f"{int(number) // 100:03d}" if number.isdecimal() else number


# Numbers of its README; 13, 14 and 22 (parking slot, road work, lane marking) have no counterpart.
_SYNTHIA = {
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


@register("synthia")
class Synthia(RenderedDataset):
    """SYNTHIA-RAND-CITYSCAPES: 9,400 rendered, labelled images, 1280 × 760.

    Views, light and traffic are random, so images are independent and splits are drawn from them.
    Results are usually given for the 16 or 13 classes that it shares with Cityscapes
    (``classes: cityscapes16`` or ``cityscapes13``). A label file has three channels of 16 bits: the
    class, the number of the instance, and an unused one.

    See `RenderedDataset` for the keys. ``root`` holds RGB and GT; there is one domain, ``synthia``.

    Reference:
        Ros et al., "The SYNTHIA dataset: a large collection of synthetic images for semantic
        segmentation of urban scenes", CVPR 2016.
    """

    homepage = "https://synthia-dataset.net"
    licence = "CC BY-NC-SA 3.0"
    layout = "RGB/<number>.png, GT/LABELS/<number>.png"
    values = lookup({old: CITYSCAPES19.names.index(name) for name, old in _SYNTHIA.items()})
    known = ("synthia",)
    files = (
        Layout(
            "RGB/{number}.png",
            mask="GT/LABELS/{number}.png",
            domain="synthia",
            group="RGB/{number}.png",
        ),
    )
    examples = (("RGB/{:07d}.png", range(40)),)

    def read_values(self, file: Path) -> NDArray[np.uint8]:
        """The first channel of a label file, (H, W)."""
        channels = read_labels(file).values
        if channels.ndim != 3 or channels.shape[2] != 3:
            raise DataError(
                f"{file}: not a label file of SYNTHIA, expected a PNG with three channels (class, "
                "instance, unused); take GT/LABELS, not GT/COLOR"
            )
        red: NDArray[np.uint8] = np.minimum(channels[..., 0], 255).astype(np.uint8)
        return red

    @classmethod
    def stored(cls, classes: NDArray[np.uint8]) -> NDArray[np.uint16]:
        """The classes in the first of three channels."""
        label = np.zeros((*classes.shape, 3), np.uint16)
        label[..., 0] = super().stored(classes)
        return label
