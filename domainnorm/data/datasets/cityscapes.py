"""Cityscapes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from domainnorm.data.dataset import UNLABELLED, Record, Split
from domainnorm.data.datasets.driving import DrivingDataset, draw_scenes, found
from domainnorm.data.datasets.label_sets import CITYSCAPES_IDS
from domainnorm.data.drawings.canvas import Scene
from domainnorm.data.drawings.files import write_image
from domainnorm.data.drawings.street_files import inverted, streets
from domainnorm.data.drawings.weather import photograph
from domainnorm.registry import register

DOMAIN = "cityscapes"
MASKS = "gtFine/*/*/*_gtFine_labelIds.png"
OFFICIAL: dict[str, Split] = {"train": "train", "val": "test"}


@register
class Cityscapes(DrivingDataset):
    """Cityscapes: 3,475 finely labelled daytime images of 21 cities, 2048 × 1024.

    The official ``val`` images are the test split, as usual, since the labels of ``test`` are
    withheld; a validation split is cut out of ``train``, whole sequences at a time.

    See `DrivingDataset` for the keys. ``root`` holds leftImg8bit and gtFine; there is one domain,
    ``cityscapes``.

    Reference:
        Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", CVPR 2016.
    """

    homepage = "https://www.cityscapes-dataset.com"
    licence = "own terms: non-commercial research and teaching, registration"
    layout = "leftImg8bit/<split>/<city>/*_leftImg8bit.png, gtFine/<split>/<city>/*_labelIds.png"
    values = CITYSCAPES_IDS
    known = (DOMAIN,)
    mask_files = MASKS
    draw = staticmethod(draw_scenes)  # the same sequences, with fog and without

    def scan(self) -> list[Record]:
        """Records of the images of all cities."""
        return [
            record(file, DOMAIN, split)
            for official, split in OFFICIAL.items()
            for file in found(self.root, f"leftImg8bit/{official}/*/*_leftImg8bit.png")
        ]

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write drawn streets by day in the official layout."""
        for name, scene in write_masks(root, seed):
            write_image(root / f"leftImg8bit/{name}_leftImg8bit.png", photograph(scene, "day"))


def record(file: str, domain: str, split: Split, **metadata: str) -> Record:
    """The record of ``<folder>/<split>/<city>/<city>_<sequence>_<frame>_leftImg8bit*.png``."""
    path = PurePosixPath(file)
    city, sequence, frame = path.name.split("_")[:3]
    mask = f"gtFine/{path.parent.parent.name}/{city}/{city}_{sequence}_{frame}_gtFine_labelIds.png"
    known = {"city": city, "sequence": sequence, **metadata}
    return Record(file, domain, UNLABELLED, f"{city}_{sequence}", split, mask, metadata=known)


def write_masks(root: Path, seed: int) -> Iterator[tuple[str, Scene]]:
    """Write gtFine of a sample; gives ``<split>/<city>/<scene>`` and the scene of each."""
    for split, city, count in (("train", "aachen", 8), ("val", "frankfurt", 3)):
        for number, scene in enumerate(streets(seed, f"cityscapes {split}", count)):
            name = f"{split}/{city}/{city}_{number:06d}_000019"
            values = inverted(CITYSCAPES_IDS)[scene.mask]
            write_image(root / f"gtFine/{name}_gtFine_labelIds.png", values)
            yield name, scene
