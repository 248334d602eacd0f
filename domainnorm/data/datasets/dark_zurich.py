"""Dark Zurich."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from domainnorm.data.dataset import UNLABELLED, Record
from domainnorm.data.datasets.driving import DrivingDataset, found
from domainnorm.data.datasets.label_sets import TRAIN_IDS
from domainnorm.data.drawings.files import write_image
from domainnorm.data.drawings.street_files import streets
from domainnorm.data.drawings.weather import photograph
from domainnorm.registry import register

HOURS = {"day": "day", "twilight": "dusk", "night": "night"}  # and how samples are drawn


@register
class DarkZurich(DrivingDataset):
    """Dark Zurich: 8,377 unlabelled images by day, twilight and night, 50 labelled ones by night.

    A domain is an hour. Training images have no labels, so a domain can be a target, not a source.
    The official ``val`` images (labelled, by night) are the test split, as usual, since the labels
    of ``test`` are withheld: ``day`` and ``twilight`` have no test images. A validation split is
    cut out of the training images, whole recordings at a time.

    See `DrivingDataset` for the keys. ``root`` holds rgb_anon and gt, of the training and the
    validation archive; domains are ``day``, ``twilight`` and ``night``.

    Reference:
        Sakaridis, Dai, Van Gool, "Guided curriculum model adaptation and uncertainty-aware
        evaluation for semantic nighttime image segmentation", ICCV 2019, arXiv 1901.05946.
    """

    homepage = "https://www.trace.ethz.ch/publications/2019/GCMA_UIoU/"
    licence = "own terms: non-commercial"
    layout = "rgb_anon/{train,val}/<hour>/<recording>/*_rgb_anon.png, gt/val/night/<recording>/"
    values = TRAIN_IDS
    known = tuple(HOURS)
    mask_files = "gt/val/night/*/*_gt_labelTrainIds.png"

    def scan(self) -> list[Record]:
        """Records of the training images at all hours, and of the labelled ones by night."""
        training = [
            _record(file, hour)
            for hour in HOURS
            for file in found(self.root, f"rgb_anon/train/{hour}/*/*_rgb_anon.png")
        ]
        return training + [
            _record(file, "night")
            for file in found(self.root, "rgb_anon/val/night/*/*_rgb_anon.png")
        ]

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write drawn streets at three hours in the official layout."""
        for hour, condition in HOURS.items():
            for number, scene in enumerate(streets(seed, f"dark_zurich {hour}", 8)):
                recording = f"GOPR03{number + 20}"
                file = f"rgb_anon/train/{hour}/{recording}/{recording}_frame_000001_rgb_anon.png"
                write_image(root / file, photograph(scene, condition))
        for number, scene in enumerate(streets(seed, "dark_zurich val", 3)):
            name = f"val/night/GOPR0356/GOPR0356_frame_{number:06d}"
            write_image(root / f"rgb_anon/{name}_rgb_anon.png", photograph(scene, "night"))
            write_image(root / f"gt/{name}_gt_labelTrainIds.png", scene.mask)


def _record(file: str, hour: str) -> Record:
    path = PurePosixPath(file)
    recording, official = path.parent.name, path.parent.parent.parent.name
    known = {"time_of_day": hour, "sequence": recording}
    group = f"{official}/{recording}"
    if official == "train":
        return Record(file, hour, UNLABELLED, group, "train", metadata=known)
    mask = file.replace("rgb_anon/", "gt/", 1).replace("_rgb_anon.png", "_gt_labelTrainIds.png")
    return Record(file, hour, UNLABELLED, group, "test", mask, metadata=known)
