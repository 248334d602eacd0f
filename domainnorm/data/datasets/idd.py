"""IDD, the India Driving Dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import Record
from domainnorm.data.datasets.driving import OFFICIAL, DrivingDataset
from domainnorm.data.datasets.label_sets import CITYSCAPES19, TRAIN_IDS
from domainnorm.data.datasets.layout import Layout
from domainnorm.data.masks import VOID
from domainnorm.data.refusals import reading
from domainnorm.errors import DataError
from domainnorm.registry import register

# `csTrainId` of the official anue_labels.py: equal names, and one more.
NUMBERS = {name: number for number, name in enumerate(CITYSCAPES19.names)} | {
    "non-drivable fallback": CITYSCAPES19.names.index("terrain")
}
VOID_NAMES = frozenset(
    {
        "parking",
        "drivable fallback",
        "rail track",
        "animal",
        "autorickshaw",
        "caravan",
        "trailer",
        "vehicle fallback",
        "curb",
        "guard rail",
        "billboard",
        "polegroup",
        "obs-str-bar-fallback",
        "bridge",
        "tunnel",
        "fallback background",
        "unlabeled",
        "ego vehicle",
        "rectification border",
        "out of roi",
        "license plate",
    }
)


@register
class IDD(DrivingDataset):
    """IDD segmentation: labelled images of Indian roads, 1920 × 1080 and 1280 × 720.

    Masks are drawn from the polygons as in the official preparation, which need not be run. The
    official mapping to Cityscapes is used: autorickshaws and other objects without a counterpart
    are void, and "non-drivable fallback" (earth, grass) is terrain. The official ``val`` images are
    the test split, since the labels of ``test`` are withheld; a validation split is cut out of
    ``train``, whole drives at a time.

    See `DrivingDataset` for the keys. ``root`` holds leftImg8bit and gtFine (IDD_Segmentation, or
    idd20kII of the second part); there is one domain, ``idd``.

    Reference:
        Varma et al., "IDD: a dataset for exploring problems of autonomous navigation in
        unconstrained environments", WACV 2019, arXiv 1811.10200.
    """

    homepage = "https://idd.insaan.iiit.ac.in"
    licence = "own terms: non-commercial research, registration"
    layout = "leftImg8bit/<split>/<drive>/*_leftImg8bit.*, gtFine/<split>/<drive>/*_polygons.json"
    values = TRAIN_IDS
    known = ("idd",)
    files = (
        Layout(
            "leftImg8bit/{split:train,val}/{sequence}/{frame}_leftImg8bit.{suffix}",
            mask="gtFine/{split}/{sequence}/{frame}_gtFine_polygons.json",
            domain="idd",
            group="{split}/{sequence}",  # drives are numbered anew in each official split
            splits=OFFICIAL,
            metadata=("sequence",),
        ),
    )
    examples = (
        ("leftImg8bit/train/{0}/{0:06d}_leftImg8bit.png", range(8)),
        ("leftImg8bit/val/{0}/{0:06d}_leftImg8bit.png", range(3)),
    )

    def read_values(self, file: Path) -> NDArray[np.uint8]:
        """Classes of ``cityscapes19``, painted polygon by polygon, (H, W)."""
        with reading(file, "file of polygons"):
            content = json.loads(file.read_bytes())
            values = np.full((content["imgHeight"], content["imgWidth"]), VOID, np.uint8)
            for number, outline in _outlines(file, content["objects"]):
                cv2.fillPoly(values, [outline], number)
        return values

    @classmethod
    def write_mask(cls, root: Path, record: Record, classes: NDArray[np.uint8]) -> None:
        """Write the outlines of a drawn mask."""
        file = root / str(record.mask)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(_polygons(classes)), encoding="utf-8")


def _outlines(file: Path, things: list[dict[str, Any]]) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Class and corners (N, 2) of what is drawn, in the order of the file."""
    for thing in things:
        corners = np.asarray(thing["polygon"], dtype=np.float64)
        if thing.get("deleted") or len(corners) < 1:
            continue
        name = str(thing["label"])
        if name not in NUMBERS and name not in VOID_NAMES:
            name = name.removesuffix("group")
        if name not in NUMBERS and name not in VOID_NAMES:
            raise DataError(
                f"{file}: label '{thing['label']}' is none of IDD's; expected the polygons of the "
                "IDD segmentation data"
            )
        yield NUMBERS.get(name, VOID), corners.round().astype(np.int32).reshape(-1, 2)


def _polygons(classes: NDArray[np.uint8]) -> dict[str, Any]:
    """Outlines of the connected parts of each class, large ones first."""
    things: list[tuple[float, dict[str, Any]]] = []
    for number in np.unique(classes):
        part = (classes == number).astype(np.uint8)
        for contour in cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]:
            thing = {"label": CITYSCAPES19.names[number], "polygon": contour[:, 0].tolist()}
            things.append((-cv2.contourArea(contour), thing))
    things.sort(key=lambda thing: thing[0])
    height, width = classes.shape
    return {"imgHeight": height, "imgWidth": width, "objects": [thing for _, thing in things]}
