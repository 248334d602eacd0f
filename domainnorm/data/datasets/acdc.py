"""ACDC, adverse conditions."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from domainnorm.data.dataset import UNLABELLED, Record, Split
from domainnorm.data.drawings.street_files import streets, write_image
from domainnorm.data.drawings.weather import photograph
from domainnorm.data.driving import DrivingDataset, check_masks, found
from domainnorm.data.label_sets import TRAIN_IDS
from domainnorm.data.official import draw_validation
from domainnorm.registry import register

CONDITIONS = ["fog", "night", "rain", "snow"]
OFFICIAL: dict[str, Split] = {"train": "train", "val": "test"}


@register
class ACDC(DrivingDataset):
    """ACDC: 2,006 labelled images of roads in fog, at night, in rain and in snow, 1920 × 1080.

    A domain is a condition. The official ``val`` images are the test split, as usual, since the
    labels of ``test`` are withheld; a validation split is cut out of ``train``, whole recordings
    at a time. The reference images in good weather are not read.

    Args:
        root: Folder that holds rgb_anon and gt: absolute, or relative to DOMAINNORM_DATA.
        domains: Some of ``fog``, ``night``, ``rain``, ``snow``; all of them when None.
        classes: Label set of the masks.
        val_fraction: Share of the training images to validate on, in (0, 1).
        split_seed: Seed of that draw.

    Raises:
        DataError: A folder, an image or a mask is missing, or a key is wrong.

    Reference:
        Sakaridis, Dai, Van Gool, "ACDC: the adverse conditions dataset with correspondences for
        semantic driving scene understanding", ICCV 2021, arXiv 2104.13395.
    """

    homepage = "https://acdc.vision.ee.ethz.ch"
    licence = "own terms: non-commercial, registration"
    layout = "rgb_anon/<condition>/<split>/<recording>/*_rgb_anon.png, gt/…/*_gt_labelTrainIds.png"

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        classes: Literal[
            "cityscapes19", "cityscapes16", "cityscapes13", "camvid11"
        ] = "cityscapes19",
        val_fraction: float = 0.2,
        split_seed: int = 0,
    ) -> None:
        super().__init__(root, classes, TRAIN_IDS)
        records = [
            _record(file, condition, split)
            for condition in CONDITIONS
            for official, split in OFFICIAL.items()
            for file in found(self.root, f"rgb_anon/{condition}/{official}/*/*_rgb_anon.png")
        ]
        check_masks(self.root, records, "gt/*/*/*/*_gt_labelTrainIds.png")
        self.keep(draw_validation(records, val_fraction, split_seed), domains, CONDITIONS)

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
