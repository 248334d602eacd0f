"""Vessels of the retina: DRIVE, STARE, CHASE_DB1 and HRF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import Record
from domainnorm.data.datasets.drawing import write_image
from domainnorm.data.datasets.layout import GreyMasks, Layout, draw_split, nearest, read_grey
from domainnorm.data.masks import VOID
from domainnorm.errors import DataError
from domainnorm.registry import register


class VesselDataset(GreyMasks):
    """Vessels of the retina in one domain; see `OfficialDataset` for the other keys.

    Args:
        fov: Label of pixels outside the camera's field of view, if the data has such a mask:
            ``void`` gives them no class, ``keep`` makes them background.
        options: Keys of `OfficialDataset`.

    Attributes:
        view: Template of the file that is white where the camera sees the retina; or empty.
    """

    task = "segmentation"
    class_names = ["background", "vessel"]  # noqa: RUF012 - a literal, as the registry needs
    codes = (0, 255)
    mask_lookup = nearest(codes)
    view: str = ""

    def __init__(self, *, fov: Literal["void", "keep"] = "void", **options: Any) -> None:
        self.fov = fov
        super().__init__(**options)

    def find_domains(self, asked: Sequence[str]) -> list[str]:
        """That of all layouts."""
        return [self.files[0].domain]

    @property
    def class_colours(self) -> list[tuple[int, int, int]]:
        """Black and red."""
        return [(0, 0, 0), (220, 30, 30)]

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Classes of one record's pixels: (H, W), 1 on vessels, 0 beside them, 255 where none."""
        vessels, record = super().mask(index), self.records[index]
        if self.view and self.fov == "void":
            view = self.beside(self.view, record.file)
            seen = read_grey(view)
            if seen.shape != vessels.shape:
                raise DataError(
                    f"{view}: {seen.shape[0]} × {seen.shape[1]} pixels, but {record.mask} has "
                    f"{vessels.shape[0]} × {vessels.shape[1]}; restore both files"
                )
            vessels[seen <= 127] = VOID
        return vessels

    @classmethod
    def write_mask(cls, root: Path, record: Record, classes: NDArray[np.uint8]) -> None:
        """Write the vessels, and a round field of view where there are such files."""
        super().write_mask(root, record, classes)
        if cls.view:
            view = np.zeros_like(classes)
            height, width = view.shape
            cv2.circle(view, (width // 2, height // 2), min(height, width) // 2 - 2, 255, -1)
            layout = next(layout for layout in cls.files if layout.parts(record.file))
            write_image(root / layout.fill(cls.view, record.file), view)


@register("drive")
class Drive(VesselDataset):
    """Vessels in 40 photographs of 565 × 584 pixels (Canon CR5, 45° field of view), 7 with disease.

    The official halves are used: 20 images for training, of which a validation split is drawn,
    and 20 for testing with the first observer's vessels. Fields of view are shipped.

    Args:
        split: ``official`` needs ``test/1st_manual``, which the present download lacks.
            ``training`` only uses the 20 training images and draws 30 % of them for testing.
        options: Keys of `VesselDataset`.

    Reference:
        Staal et al., "Ridge-based vessel segmentation in color images of the retina", IEEE TMI
        23(4), 2004.
    """

    homepage = "https://drive.grand-challenge.org"
    licence = "CC BY 4.0; registration"
    layout = "{training,test}/{images,1st_manual,mask}/ with tif images, gif masks"
    files = tuple(
        Layout(
            f"{{half:{half}}}/images/{{number}}_{half}.tif",
            mask="{half}/1st_manual/{number}_manual1.gif",
            domain="drive",
            group="drive/{number}",
            derived=lambda parts: {"split": parts["half"]},
            splits={"training": "train"},
        )
        for half in ("training", "test")
    )
    view = "{half}/mask/{stem}_mask.gif"
    drawn = (106, 96)
    examples = (
        ("training/images/{:02d}_training.tif", range(21, 31)),
        ("test/images/{:02d}_test.tif", range(1, 5)),
    )

    def __init__(
        self, *, split: Literal["official", "training"] = "official", **options: Any
    ) -> None:
        self._split = split
        super().__init__(**options)

    def draw(self, records: Sequence[Record], fraction: float, seed: int) -> list[Record]:
        """Draw validation images, and test images where the official ones are not used."""
        if self._split == "training":
            records = draw_split(records, "test", 0.3, seed)
        return super().draw(records, fraction, seed)

    def layouts(self) -> Sequence[Layout]:
        """Both halves, or the training half alone.

        Raises:
            DataError: The labels of the other half are missing.
        """
        if self._split == "training":
            return self.files[:1]
        if not (self.root / "test/1st_manual").is_dir():
            raise DataError(
                f"{self.root / 'test/1st_manual'}: no such folder; the present download withholds "
                "the test labels: set data.split to 'training', or add them from an older one"
            )
        return self.files


@register("stare")
class Stare(VesselDataset):
    """Vessels in 20 slides of 700 × 605 pixels (TopCon TRV-50, 35° field of view), 10 with disease.

    Labels are those of Adam Hoover (``labels-ah``). There is no official split: as elsewhere, the
    first ten images in the order of their names train and the last ten test; a validation split
    is drawn from the former. No field of view is shipped, so ``fov`` changes nothing.

    Reference:
        Hoover, Kouznetsova & Goldbaum, "Locating blood vessels in retinal images by piecewise
        threshold probing of a matched filter response", IEEE TMI 19(3), 2000.
    """

    homepage = "https://cecas.clemson.edu/~ahoover/stare/probing/index.html"
    licence = "not stated; research use"
    layout = "stare-images/im0001.ppm, labels-ah/im0001.ah.ppm, unpacked from .gz"
    files = (
        Layout(
            "stare-images/{name}.ppm",
            mask="labels-ah/{name}.ah.ppm",
            domain="stare",
            group="stare/{name}",
        ),
    )
    drawn = (104, 120)
    examples = (("stare-images/im{:04d}.ppm", range(1, 14)),)

    def scan(self) -> list[Record]:
        """Records of all images, the first ten of which train."""
        records = super().scan()
        return records[:10] + [replace(record, split="test") for record in records[10:]]


@register("chase_db1")
class ChaseDb1(VesselDataset):
    """Vessels in 28 photographs of 999 × 960 pixels (Nidek NM-200-D), both eyes of 14 children.

    Labels are the first observer's (``_1stHO``); a group is a child. There is no official split:
    as elsewhere, children 1 to 10 (20 images) train and 11 to 14 (8 images) test; a validation
    split is drawn from the former. No field of view is shipped, so ``fov`` changes nothing.

    Reference:
        Fraz et al., "An ensemble classification-based approach applied to retinal blood vessel
        segmentation", IEEE TBME 59(9), 2012.
    """

    homepage = "https://researchdata.kingston.ac.uk/96/"
    licence = "CC BY 4.0"
    layout = "Image_01L.jpg, Image_01L_1stHO.png, all in one folder"
    files = (
        Layout(
            "Image_{child:\\d+}{eye:[LR]}.jpg",
            mask="{stem}_1stHO.png",
            domain="chase_db1",
            group="chase_db1/child_{child}",
            derived=lambda parts: {"split": "train" if int(parts["child"]) <= 10 else "test"},
            strangers="expected names such as Image_01L.jpg; move other files away",
        ),
    )
    drawn = (96, 100)
    examples = tuple((f"Image_{{:02d}}{eye}.jpg", (*range(1, 10), 11, 12)) for eye in "LR")


_DIAGNOSES = {"h": "healthy", "dr": "diabetic_retinopathy", "g": "glaucoma"}


@register("hrf")
class Hrf(VesselDataset):
    """Vessels in 45 photographs of 3504 × 2336 pixels (Canon CR-1, 45°).

    15 each are of healthy eyes, diabetic retinopathy and glaucoma: metadata ``diagnosis``. There
    is no official split: as in Orlando et al. (IEEE TBME 64(1), 2017) images 1 to 5 of each
    diagnosis train and 6 to 15 test; a validation split is drawn from the former. Fields of view
    are shipped.

    Reference:
        Budai et al., "Robust vessel segmentation in fundus images", Int. J. Biomedical Imaging,
        2013.
    """

    homepage = "https://www5.cs.fau.de/research/data/fundus-images/"
    licence = "CC BY 4.0"
    layout = "images/01_h.jpg, manual1/01_h.tif, mask/01_h_mask.tif; h, dr and g"
    files = (
        Layout(
            "images/{number:\\d+}_{kind:h|dr|g}.jpg",
            mask="manual1/{stem}.tif",
            domain="hrf",
            group="hrf/{stem}",
            metadata=("diagnosis",),
            derived=lambda parts: {
                "diagnosis": _DIAGNOSES[parts["kind"]],
                "split": "train" if int(parts["number"]) <= 5 else "test",
            },
            strangers="expected names such as 01_h.jpg, 01_dr.JPG and 01_g.jpg",
        ),
    )
    view = "mask/{stem}_mask.tif"
    drawn = (80, 120)
    # The official archive has these names, upper-case suffix included.
    examples = tuple(
        (f"images/{{:02d}}_{kind}.{suffix}", (1, 2, 3, 6, 7))
        for kind, suffix in (("h", "jpg"), ("dr", "JPG"), ("g", "jpg"))
    )
