"""BDD100K, its 10,000 images with masks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from domainnorm.data.dataset import Record
from domainnorm.data.datasets.driving import OFFICIAL, DrivingDataset
from domainnorm.data.datasets.label_sets import TRAIN_IDS
from domainnorm.data.datasets.layout import Layout
from domainnorm.data.refusals import reading
from domainnorm.errors import DataError
from domainnorm.registry import register

# Files that give attributes of frames: the detection labels of 2020, those of 2018, and the
# polygons of the segmentation labels, should a release have attributes there.
ATTRIBUTES = (
    "labels/det_20/det_*.json",
    "labels/bdd100k_labels_images_*.json",
    "labels/sem_seg/polygons/sem_seg_*.json",
)
DOMAINS = {
    "timeofday": ["daytime", "dawn_dusk", "night", "undefined"],
    "weather": ["clear", "partly_cloudy", "overcast", "rainy", "snowy", "foggy", "undefined"],
}
_SAMPLE = {  # weathers by the time of day
    "daytime": ["clear", "rainy", "snowy", "foggy"],
    "dawn/dusk": ["overcast", "partly cloudy"],
    "night": ["clear"],
    "undefined": ["undefined"],
}


@register
class BDD100K(DrivingDataset):
    """BDD100K: 8,000 labelled dash-camera images of the USA, 1280 × 720.

    A domain is a time of day or a weather. Both are attributes of the detection labels, which only
    cover some of these images; the domain of the others is ``undefined``. The official ``val``
    images are the test split, since the labels of ``test`` are withheld. Every image is from a
    different drive; a validation split is cut out of ``train``.

    See `DrivingDataset` for the other keys. ``root`` holds images and labels.

    Args:
        by: Attribute that defines domains: ``timeofday`` (``daytime``, ``dawn_dusk``, ``night``,
            ``undefined``) or ``weather`` (``clear``, ``partly_cloudy``, ``overcast``, ``rainy``,
            ``snowy``, ``foggy``, ``undefined``). Without ``domains``, all that have images.
        options: Keys of `DrivingDataset`.

    Reference:
        Yu et al., "BDD100K: a diverse driving dataset for heterogeneous multitask learning", CVPR
        2020, arXiv 1805.04687.
    """

    homepage = "https://www.vis.xyz/bdd100k/"
    licence = "own terms: BSD 3-clause for education, research and not-for-profit; registration"
    layout = "images/10k/<split>/*.jpg, labels/sem_seg/masks/<split>/*.png, labels/det_20/*.json"
    values = TRAIN_IDS
    files = (
        Layout(
            "images/10k/{split:train,val}/{name}.jpg",
            mask="labels/sem_seg/masks/{split}/{name}.png",
            domain="undefined",
            group="{name}",
            splits=OFFICIAL,
        ),
    )

    def __init__(
        self, *, by: Literal["timeofday", "weather"] = "timeofday", **options: Any
    ) -> None:
        self.by = by
        super().__init__(**options)

    def find_domains(self, asked: Sequence[str]) -> list[str]:
        """Those that have images, and those that were asked for."""
        attributes = _attributes(self.root)
        self._scanned = [self._told(record, attributes) for record in super().scan()]
        wanted = {record.domain for record in self._scanned} | set(asked)
        return [name for name in DOMAINS[self.by] if name in wanted]

    def scan(self) -> list[Record]:
        """Records of all images, with what is known of their time and weather."""
        return self._scanned

    def _told(self, record: Record, attributes: dict[str, dict[str, str]]) -> Record:
        known = attributes.get(Path(record.file).name, {})
        domain = known.get(self.by, "undefined").replace("/", "_").replace(" ", "_")
        return replace(record, domain=domain, metadata=known)

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write drawn images at all hours in the official layout."""
        for split, count in (("train", 8), ("val", 3)):
            frames: list[dict[str, Any]] = []
            for hour, weathers in _SAMPLE.items():
                stream = int.from_bytes(f"bdd100k {hour} {split}".encode(), "big") % 1_000_003
                for number in range(count):
                    unique = ((seed * 1_000_003 + stream) * 1_000 + number) % 16**8
                    name = f"{len(frames):08x}-{unique:08x}"
                    cls.write_example(root, f"images/10k/{split}/{name}.jpg", seed, hour)
                    weather = weathers[number % len(weathers)]
                    known = {"weather": weather, "timeofday": hour, "scene": "city street"}
                    frames.append({"name": f"{name}.jpg", "attributes": known, "labels": []})
            file = root / f"labels/det_20/det_{split}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(frames), encoding="utf-8")


def _attributes(root: Path) -> dict[str, dict[str, str]]:
    """Attributes of frames by the name of their image, of all files that give some."""
    attributes: dict[str, dict[str, str]] = {}
    for pattern in ATTRIBUTES:
        for file in sorted(root.glob(pattern)):
            with reading(file, "list of frames of BDD100K"):
                frames = json.loads(file.read_bytes(), object_hook=_without_labels)
                attributes.update({frame[0]: frame[1] for frame in frames if frame})
    if not attributes:
        raise DataError(
            f"{root}: no attributes of frames in {' or '.join(ATTRIBUTES[:2])}; time of day and "
            "weather are in the detection labels, so unpack those too (docs/data_driving.md)"
        )
    return attributes


def _without_labels(entry: dict[str, Any]) -> Any:
    """Frames as (name, attributes); boxes, half a gigabyte, are dropped at once."""
    if "timeofday" in entry or "weather" in entry:
        return {key: str(value) for key, value in entry.items()}
    if "name" in entry and isinstance(entry.get("attributes"), dict):
        return entry["name"], entry["attributes"]
    return None
