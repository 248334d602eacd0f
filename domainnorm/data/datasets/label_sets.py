"""Label sets of driving scenes, and how the classes of one are found in another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.masks import VOID
from domainnorm.errors import DataError, unknown

Colour = tuple[int, int, int]
Lookup = NDArray[np.uint8]


@dataclass(frozen=True)
class LabelSet:
    """Classes in the order of their numbers.

    Args:
        colours: Official RGB colour of each class by its name.
    """

    colours: Mapping[str, Colour]

    @property
    def names(self) -> list[str]:
        """Names of the K classes."""
        return list(self.colours)

    def numbers(self, *names: str) -> list[int]:
        """Numbers of some classes."""
        return [self.names.index(name) for name in names]

    def without(self, *names: str) -> LabelSet:
        """The other classes, in the same order."""
        return LabelSet({name: rgb for name, rgb in self.colours.items() if name not in names})


CITYSCAPES19 = LabelSet(
    {
        "road": (128, 64, 128),
        "sidewalk": (244, 35, 232),
        "building": (70, 70, 70),
        "wall": (102, 102, 156),
        "fence": (190, 153, 153),
        "pole": (153, 153, 153),
        "traffic light": (250, 170, 30),
        "traffic sign": (220, 220, 0),
        "vegetation": (107, 142, 35),
        "terrain": (152, 251, 152),
        "sky": (70, 130, 180),
        "person": (220, 20, 60),
        "rider": (255, 0, 0),
        "car": (0, 0, 142),
        "truck": (0, 0, 70),
        "bus": (0, 60, 100),
        "train": (0, 80, 100),
        "motorcycle": (0, 0, 230),
        "bicycle": (119, 11, 32),
    }
)
CITYSCAPES16 = CITYSCAPES19.without("terrain", "truck", "train")
CAMVID11 = LabelSet(
    {
        "sky": (128, 128, 128),
        "building": (128, 0, 0),
        "pole": (192, 192, 128),
        "road": (128, 64, 128),
        "pavement": (0, 0, 192),
        "tree": (128, 128, 0),
        "sign_symbol": (192, 128, 128),
        "fence": (64, 64, 128),
        "car": (64, 0, 128),
        "pedestrian": (64, 64, 0),
        "bicyclist": (0, 128, 192),
    }
)
LABEL_SETS = {
    "cityscapes19": CITYSCAPES19,
    "cityscapes16": CITYSCAPES16,
    "cityscapes13": CITYSCAPES16.without("wall", "fence", "pole"),
    "camvid11": CAMVID11,
}

# The groups by which SegNet made 11 classes of CamVid's 32, applied to the names of Cityscapes.
_TO_CAMVID = {
    "sidewalk": "pavement",
    "wall": "building",
    "traffic light": "sign_symbol",
    "traffic sign": "sign_symbol",
    "vegetation": "tree",
    "terrain": "tree",
    "person": "pedestrian",
    "rider": "bicyclist",
    "truck": "car",
    "bus": "car",
    "train": "car",
    "motorcycle": "bicyclist",
    "bicycle": "bicyclist",
}
# Back, only what is nearly all of one class: a bicyclist is rider and bicycle in one, and
# sign_symbol holds lights as well as signs.
_FROM_CAMVID = {"pavement": "sidewalk", "tree": "vegetation", "pedestrian": "person"}

# Ids of gtFine/*_labelIds.png -> numbers of CITYSCAPES19 (cityscapesscripts/helpers/labels.py).
_TRAINED_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def lookup(numbers: Mapping[int, int]) -> Lookup:
    """A table (256,) of new numbers by old ones, 255 for all that are not named."""
    table = np.full(256, VOID, dtype=np.uint8)
    for old, new in numbers.items():
        table[old] = new
    return table


CITYSCAPES_IDS = lookup({old: new for new, old in enumerate(_TRAINED_IDS)})
TRAIN_IDS = lookup({number: number for number in range(19)})


def inverted(values: Lookup) -> Lookup:
    """The first value of a mask file for each class, (256,); 255 for classes it cannot hold."""
    stored = np.full(256, VOID, dtype=np.uint8)
    for value in reversed(range(256)):
        if values[value] != VOID:
            stored[values[value]] = value
    return stored


def label_set(name: str) -> LabelSet:
    """The label set called ``name``.

    Raises:
        DataError: No such label set; the message names the key ``data.classes``.
    """
    if name not in LABEL_SETS:
        raise DataError(f"data.classes: {unknown('label set', name, LABEL_SETS)}")
    return LABEL_SETS[name]


def mapping(source: str, target: str) -> Lookup:
    """Numbers of ``target`` by numbers of ``source``; 255 for classes without a counterpart.

    Args:
        source: Name of the label set that masks are in.
        target: Name of the label set they should be in.

    Shape:
        - output: (256,), uint8

    Raises:
        DataError: No such label set.
    """
    old, new = label_set(source).names, label_set(target).names
    renamed: Mapping[str, str] = _TO_CAMVID if target == "camvid11" != source else {}
    if source == "camvid11" != target:
        renamed = _FROM_CAMVID
    names = [renamed.get(name, name) for name in old]
    return lookup({i: new.index(name) for i, name in enumerate(names) if name in new})
