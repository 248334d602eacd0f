"""ACDC, adverse conditions."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from domainnorm.data.dataset import UNLABELLED, Record, Split
from domainnorm.data.datasets.driving import DrivingDataset, found
from domainnorm.data.datasets.label_sets import TRAIN_IDS
from domainnorm.data.drawings.files import write_image
from domainnorm.data.drawings.street_files import streets
from domainnorm.data.drawings.weather import photograph
from domainnorm.registry import register

CONDITIONS = ["fog", "night", "rain", "snow"]
OFFICIAL: dict[str, Split] = {"train": "train", "val": "test"}


@register
class ACDC(DrivingDataset):
    """ACDC: 2,006 labelled images of roads in fog, at night, in rain and in snow, 1920 × 1080.

    A domain is a condition. The official ``val`` images are the test split, as usual, since the
    labels of ``test`` are withheld; a validation split is cut out of ``train``, whole recordings
    at a time. The reference images in good weather are not read.

    See `DrivingDataset` for the keys. ``root`` holds rgb_anon and gt; domains are ``fog``,
    ``night``, ``rain`` and ``snow``.

    Reference:
        Sakaridis, Dai, Van Gool, "ACDC: the adverse conditions dataset with correspondences for
        semantic driving scene understanding", ICCV 2021, arXiv 2104.13395.
    """

    homepage = "https://acdc.vision.ee.ethz.ch"
    licence = "own terms: non-commercial, registration"
    layout = "rgb_anon/<condition>/<split>/<recording>/*_rgb_anon.png, gt/…/*_gt_labelTrainIds.png"
    values = TRAIN_IDS
    known = CONDITIONS
    mask_files = "gt/*/*/*/*_gt_labelTrainIds.png"

    def scan(self) -> list[Record]:
        """Records of the images in all conditions."""
        return [
            _record(file, condition, split)
            for condition in CONDITIONS
            for official, split in OFFICIAL.items()
            for file in found(self.root, f"rgb_anon/{condition}/{official}/*/*_rgb_anon.png")
        ]

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write drawn streets in each condition in the official layout."""
        for condition in CONDITIONS:
            for split, first, count in (("train", 400, 8), ("val", 600, 2)):
                for number, scene in enumerate(streets(seed, f"acdc {condition} {split}", count)):
                    recording = f"GOPR0{first + number}"
                    name = f"{condition}/{split}/{recording}/{recording}_frame_000019"
                    pixels = photograph(scene, condition, density=0.05)
                    write_image(root / f"rgb_anon/{name}_rgb_anon.png", pixels)
                    write_image(root / f"gt/{name}_gt_labelTrainIds.png", np.asarray(scene.mask))


def _record(file: str, condition: str, split: Split) -> Record:
    recording = PurePosixPath(file).parent.name
    mask = file.replace("rgb_anon/", "gt/", 1).replace("_rgb_anon.png", "_gt_labelTrainIds.png")
    known = {"condition": condition, "sequence": recording}
    # Numbers of recordings are those of the camera's files, so they may come again elsewhere.
    group = f"{condition}/{recording}"
    return Record(file, condition, UNLABELLED, group, split, mask, metadata=known)
