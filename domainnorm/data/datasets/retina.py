"""What datasets of retinal photographs share: vessels in a field of view, optic disc and cup."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import DOMAIN_KEYS, FileDataset, Record, resolved_root, select_domains
from domainnorm.data.masks import VOID
from domainnorm.data.official import draw_validation, read_grey
from domainnorm.errors import DataError

REGION_IN_DISCS = 2.5  # side of the cut-out around the optic disc, in diameters of the disc


class VesselDataset(FileDataset, abc.ABC):
    """Vessels of the retina in one domain; a subclass lists records and fields of view.

    Args:
        root: Folder of the data: absolute, or relative to the folder that the environment
            variable DOMAINNORM_DATA names (``data`` when it is not set).
        domains: Domains to use; there is one.
        val_fraction: Share of the training images to validate on, in (0, 1).
        split_seed: Seed of the drawn validation split.
        fov: What pixels outside the circle that the camera sees are, where the data has such a
            mask: ``void`` has no class, ``keep`` is background.

    Raises:
        DataError: The root, a folder or a file is missing; the message names it.
    """

    task = "segmentation"
    domain = ""

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
        fov: Literal["void", "keep"] = "void",
    ) -> None:
        self.root = resolved_root(root)
        self.class_names = ["background", "vessel"]
        self.domain_names = select_domains(DOMAIN_KEYS, domains, [self.domain])
        self.fov = fov
        self.split_seed = split_seed
        self.records = draw_validation(self._listed(), val_fraction, split_seed)

    @property
    def class_colours(self) -> list[tuple[int, int, int]]:
        """Black and red."""
        return [(0, 0, 0), (220, 30, 30)]

    @abc.abstractmethod
    def _listed(self) -> list[Record]:
        """All images with their vessels; those for training are not divided yet."""

    def _field_of_view(self, record: Record) -> Path | None:
        """File that is white where the camera sees the retina; None when there is none."""
        return None

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Classes of one record's pixels: (H, W), 1 on vessels, 0 beside them, 255 where none.

        Raises:
            DataError: A file of labels is missing, cannot be read or has another size than the
                vessels; the message names it.
        """
        record = self.records[index]
        if record.mask is None:
            raise DataError(f"{record.file}: no mask is known for this image")
        vessels = (read_grey(self.root / record.mask) > 127).astype(np.uint8)
        view = self._field_of_view(record) if self.fov == "void" else None
        if view is not None:
            seen = read_grey(view)
            if seen.shape != vessels.shape:
                raise DataError(
                    f"{view}: {seen.shape[0]} × {seen.shape[1]} pixels, but {record.mask} has "
                    f"{vessels.shape[0]} × {vessels.shape[1]}; restore both files"
                )
            vessels[seen <= 127] = VOID
        return vessels

    def _record(
        self, image: Path, vessels: Path, group: str, split: Literal["train", "test"]
    ) -> Record:
        return Record(
            image.relative_to(self.root).as_posix(),
            self.domain,
            -1,
            f"{self.domain}/{group}",
            split,
            mask=vessels.relative_to(self.root).as_posix(),
        )


class DiscCupDataset(FileDataset, abc.ABC):
    """Optic disc and cup; a subclass lists the records and decodes their masks.

    A subclass sets ``domain_names`` and ``records`` in its constructor, then calls `_locate`.
    """

    task = "segmentation"
    class_names = ["background", "disc", "cup"]  # noqa: RUF012 - a literal, as the registry needs

    @property
    def class_colours(self) -> list[tuple[int, int, int]]:
        """Black, yellow and light blue."""
        return [(0, 0, 0), (240, 200, 40), (80, 160, 250)]

    @abc.abstractmethod
    def _decoded(self, file: str) -> NDArray[np.uint8]:
        """Classes of a whole photograph from its mask file: (H, W), 0, 1 or 2."""

    def _locate(self, region: Literal["image", "disc"]) -> None:
        self._region = region
        # Where the disc is, is all that a domain whose labels are hidden still tells of its masks.
        self._annotated = {record.file: record.mask for record in self.records}
        self._boxes: dict[str, tuple[int, int, int]] = {}

    def image(self, index: int) -> NDArray[np.uint8]:
        """Pixels of one record, or of the square around its disc: (H, W, 3), RGB, 0 to 255.

        Raises:
            DataError: A file cannot be read, or no disc is marked; the message names it.
        """
        pixels = super().image(index)
        return _cut(pixels, self._box(index), 0) if self._region == "disc" else pixels

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Classes of one record's pixels: (H, W), 0 background, 1 disc, 2 cup, 255 outside.

        Raises:
            DataError: The mask is missing or cannot be read; the message names it.
        """
        record = self.records[index]
        if record.mask is None:
            raise DataError(f"{record.file}: no mask is known for this image")
        classes = self._decoded(record.mask)
        return _cut(classes, self._box(index), VOID) if self._region == "disc" else classes

    def _box(self, index: int) -> tuple[int, int, int]:
        """Row and column of the first pixel of the region, and its side."""
        file = self.records[index].file
        if file not in self._boxes:
            mask = self._annotated[file]
            if mask is None:
                raise DataError(
                    f"{file}: region 'disc' needs a mask to find the disc; set region to 'image'"
                )
            self._boxes[file] = _square(self._decoded(mask), mask)
        return self._boxes[file]


def _square(classes: NDArray[np.uint8], name: str) -> tuple[int, int, int]:
    rows, columns = np.flatnonzero(classes.any(1)), np.flatnonzero(classes.any(0))
    if not rows.size:
        raise DataError(f"{name}: no disc is marked; set region to 'image' or remove the image")
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    side = round(REGION_IN_DISCS * int(extent))
    top, left = (
        int(rows[0] + rows[-1] + 1 - side) // 2,
        int(columns[0] + columns[-1] + 1 - side) // 2,
    )
    return top, left, side


def _cut(pixels: NDArray[np.uint8], box: tuple[int, int, int], fill: int) -> NDArray[np.uint8]:
    """The square of a box, filled where it reaches over the edge."""
    top, left, side = box
    height, width = pixels.shape[:2]
    inside = pixels[max(top, 0) : top + side, max(left, 0) : left + side]
    above, before = max(-top, 0), max(-left, 0)
    below, after = max(top + side - height, 0), max(left + side - width, 0)
    filled = cv2.copyMakeBorder(
        inside, above, below, before, after, cv2.BORDER_CONSTANT, value=[fill] * 3
    )
    return np.asarray(filled, dtype=np.uint8)
