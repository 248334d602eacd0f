"""Optic disc and cup in photographs of the retina: REFUGE, Drishti-GS and RIM-ONE DL."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import Record
from domainnorm.data.datasets.drawing import write_image
from domainnorm.data.datasets.layout import (
    GreyMasks,
    Layout,
    LayoutDataset,
    TestedDataset,
    nearest,
    read_grey,
)
from domainnorm.data.masks import VOID
from domainnorm.errors import DataError
from domainnorm.registry import register

REGION_IN_DISCS = 2.5  # side of the cut-out around the optic disc, in diameters of the disc


class DiscCupDataset(LayoutDataset, abc.ABC):
    """Optic disc and cup; a subclass decodes their masks. See `OfficialDataset` for other keys.

    Args:
        region: ``image``: the whole photograph. ``disc``: a square around the disc, 2.5 diameters
            wide; needed beside data that are already cut out (RIM-ONE DL). The mask gives its
            position, on target domains too, as in the public multi-site benchmark.
        options: Keys of `OfficialDataset`.

    Reference:
        Cut-outs: Wang et al., "DoFE", IEEE TMI 39(12), 2020, arXiv:2010.06208.
    """

    task = "segmentation"
    class_names = ["background", "disc", "cup"]  # noqa: RUF012 - a literal, as the registry needs
    drawn_classes = 3
    nested = True

    def __init__(self, *, region: Literal["image", "disc"] = "image", **options: Any) -> None:
        super().__init__(**options)
        self._region = region
        # Where the disc is, is all that a domain whose labels are hidden still tells of its masks.
        self._annotated = {record.file: record.mask for record in self.records}
        self._boxes: dict[str, tuple[int, int, int]] = {}

    @property
    def class_colours(self) -> list[tuple[int, int, int]]:
        """Black, yellow and light blue."""
        return [(0, 0, 0), (240, 200, 40), (80, 160, 250)]

    @abc.abstractmethod
    def _decoded(self, file: str) -> NDArray[np.uint8]:
        """Classes of a whole photograph from its mask file: (H, W), 0, 1 or 2."""

    def image(self, index: int) -> NDArray[np.uint8]:
        """Pixels of one record, or of the square around its disc: (H, W, 3), RGB, 0 to 255."""
        pixels = super().image(index)
        return _cut(pixels, self._box(index), 0) if self._region == "disc" else pixels

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Classes of one record's pixels: (H, W), 0 background, 1 disc, 2 cup, 255 outside."""
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


def _refuge(root: Path | None = None) -> list[Layout]:
    """The archives of REFUGE, as they are unpacked below a folder, or as they are packed."""
    truth = _unpacked(root, "REFUGE-Test-GT") + "/Disc_Cup_Masks"
    # Test masks are sorted into G(laucoma) and N(o glaucoma), in some copies they are not.
    sorted_masks = root.glob(f"{truth}/[GN]/*.bmp") if root else ()
    held = {file.stem: file.parent.name for file in sorted_masks}
    zeiss = Layout(
        _unpacked(root, "Training400") + "/{kind:Glaucoma,Non-Glaucoma}/{name}.jpg",
        mask=_unpacked(root, "Annotation-Training400") + "/Disc_Cup_Masks/{kind}/{name}.bmp",
        domain="refuge_zeiss",
        group="refuge/{name}",
        metadata=("diagnosis",),
        derived=lambda parts: {"diagnosis": parts["kind"].lower()},
    )
    trains = Layout(
        _unpacked(root, "REFUGE-Validation400") + "/{name}.jpg",
        mask=_unpacked(root, "REFUGE-Validation400-GT") + "/Disc_Cup_Masks/{name}.bmp",
        domain="refuge_canon",
        group="refuge/{name}",
        metadata=("diagnosis",),
        derived=lambda parts: {"diagnosis": "unknown"},
    )
    names = {"G": "glaucoma", "N": "non-glaucoma"}
    tests = replace(
        trains,
        images=_unpacked(root, "Test400") + "/{name}.jpg",
        mask=truth + ("/{folder}/{name}.bmp" if held else "/{name}.bmp"),
        derived=lambda parts: {
            "split": "test",
            "folder": held.get(parts["name"], "[GN]"),
            "diagnosis": names.get(held.get(parts["name"], ""), "unknown"),
        },
    )
    return [zeiss, trains, tests]


def _unpacked(root: Path | None, name: str) -> str:
    """The folder of an archive: unpackers differ in whether they make one of its name above it."""
    archive = f"REFUGE-{name}" if name in ("Training400", "Test400") else name
    return f"{archive}/{name}" if root and (root / archive / name).is_dir() else name


@register("refuge")
class Refuge(TestedDataset, DiscCupDataset, GreyMasks):
    """Optic disc and cup in 400 photographs of ``refuge_zeiss`` and 800 of ``refuge_canon``.

    The challenge's training images come from a Zeiss Visucam 500, its validation and test images
    from a Canon CR-2; here the cameras are the domains. ``refuge_zeiss`` is Training400; test and
    validation splits are drawn and stratified by diagnosis. ``refuge_canon`` trains on
    Validation400 (its masks are public) and tests on Test400; a validation split is drawn. Every
    image is its own group, since the patients are unknown.

    See `TestedDataset` and `DiscCupDataset` for the keys.

    Reference:
        Orlando et al., "REFUGE Challenge", Medical Image Analysis 59, 2020, arXiv:1910.03667.
    """

    homepage = "https://refuge.grand-challenge.org"
    licence = "research use; registration"
    layout = (
        "Training400, Annotation-Training400, REFUGE-Validation400{,-GT}, Test400, REFUGE-Test-GT"
    )
    known = ("refuge_zeiss", "refuge_canon")
    stratum = "diagnosis"
    files = _refuge()
    codes = (255, 128, 0)
    mask_lookup = nearest(codes)

    def layouts(self) -> Sequence[Layout]:
        """Those of the chosen cameras, as they are unpacked."""
        return [layout for layout in _refuge(self.root) if layout.domain in self.domain_names]

    def _decoded(self, file: str) -> NDArray[np.uint8]:
        return self.mask_lookup[read_grey(self.root / file)]

    drawn = (96, 100)
    examples = (
        ("Training400/Glaucoma/g{:04d}.jpg", range(1, 7)),
        ("Training400/Non-Glaucoma/n{:04d}.jpg", range(1, 19)),
        ("REFUGE-Validation400/V{:04d}.jpg", range(1, 13)),
        ("Test400/T{:04d}.jpg", range(1, 9)),
    )

    @classmethod
    def write_mask(cls, root: Path, record: Record, classes: NDArray[np.uint8]) -> None:
        """Write a mask; those of test images are sorted."""
        file = root / str(record.mask)
        if record.split == "test":
            file = file.parent / "GN"[int(file.stem[1:]) % 2] / file.name
        write_image(file, cls.stored(classes))


class _TwoFiles(DiscCupDataset):
    """Disc and cup in a file each.

    Attributes:
        disc: How the name of the file of the disc ends.
        cup: How that of the cup ends, in the same folder.
    """

    disc: str
    cup: str

    def _decoded(self, file: str) -> NDArray[np.uint8]:
        disc = read_grey(self.root / file) > 127
        inner = file.removesuffix(self.disc) + self.cup
        cup = read_grey(self.root / inner) > 127
        if cup.shape != disc.shape:
            raise DataError(f"{self.root / inner}: another size than {file}; restore both files")
        return np.where(cup, 2, np.where(disc, 1, 0)).astype(np.uint8)

    @classmethod
    def write_mask(cls, root: Path, record: Record, classes: NDArray[np.uint8]) -> None:
        """Write both files."""
        file = str(record.mask)
        write_image(root / file, np.uint8(255) * (classes > 0))
        write_image(root / (file.removesuffix(cls.disc) + cls.cup), np.uint8(255) * (classes > 1))


@register("drishti_gs")
class DrishtiGs(_TwoFiles):
    """Optic disc and cup in 101 photographs of about 2047 × 1760 pixels (Aravind eye hospital).

    Soft maps hold the share of four experts that marked a pixel, as a grey value; a pixel is disc
    or cup if more than half of them marked it. The official 50 training and 51 test images are
    used; a validation split is drawn from the former. Every image is its own group.

    See `DiscCupDataset` for the keys.

    Reference:
        Sivaswamy et al., "Drishti-GS: retinal image dataset for optic nerve head segmentation",
        ISBI 2014.
    """

    homepage = "https://cvit.iiit.ac.in/projects/mip/drishti-gs/mip-dataset2/Home.php"
    licence = "not stated; research use"
    layout = "Drishti-GS1_files/{Training,Test}/Images/*.png, Training/GT and Test/Test_GT"
    known = ("drishti_gs",)
    disc = "_ODsegSoftmap.png"
    cup = "_cupsegSoftmap.png"
    files = (
        Layout(
            # Later downloads sort the images into GLAUCOMA and NORMAL.
            "Drishti-GS1_files/{split:Training,Test}/Images/**/{name}.png",
            mask="Drishti-GS1_files/{split}/{truth}/{name}/SoftMap/{name}_ODsegSoftmap.png",
            beside=("Drishti-GS1_files/{split}/{truth}/{name}/SoftMap/{name}_cupsegSoftmap.png",),
            domain="drishti_gs",
            group="drishti_gs/{name}",
            splits={"Training": "train", "Test": "test"},
            derived=lambda parts: {"truth": "Test_GT" if parts["split"] == "Test" else "GT"},
        ),
    )
    drawn = (96, 112)
    examples = (
        ("Drishti-GS1_files/Training/Images/drishtiGS_{:03d}.png", range(1, 11)),
        ("Drishti-GS1_files/Test/Images/drishtiGS_{:03d}.png", range(11, 17)),
    )

    def layouts(self) -> Sequence[Layout]:
        """The archive with its folder, or its content alone."""
        if (self.root / "Drishti-GS1_files").is_dir():
            return self.files
        return [layout.without("Drishti-GS1_files/") for layout in self.files]


def _partition(folder: str) -> Layout:
    masks = "RIM-ONE_DL_reference_segmentations/{diagnosis}/{stem}"
    return Layout(
        f"RIM-ONE_DL_images/{folder}/{{split:training_set,test_set}}"
        "/{diagnosis:glaucoma,normal}/{release}_{name}.png",
        mask=f"{masks}-1-Disc-T.png",
        beside=(f"{masks}-1-Cup-T.png",),
        domain="rim_one",
        group="rim_one/{stem}",
        splits={"training_set": "train", "test_set": "test"},
        metadata=("diagnosis", "release"),
    )


@register("rim_one")
class RimOne(_TwoFiles):
    """Optic disc and cup in the 485 images of RIM-ONE DL (not r3): 313 normal, 172 with glaucoma.

    The images are those of releases r1, r2 and r3, of three Spanish hospitals, cut out around the
    optic disc. Beside it, the other disc datasets therefore need ``region: disc``. The official
    partitions are used; a validation split is drawn from the training set. Every image is its own
    group, since the patients are unknown.

    See `OfficialDataset` for the other keys.

    Args:
        partition: Official partition. ``hospital`` trains on one hospital (311 images) and tests
            on the two others (174). ``random`` mixes the hospitals (339 and 146).

    Reference:
        Fumero et al., "RIM-ONE DL: a unified retinal image database for assessing glaucoma using
        deep learning", Image Analysis & Stereology 39(3), 2020.
    """

    homepage = "https://github.com/miag-ull/rim-one-dl"
    licence = "research and education; not commercial"
    layout = "RIM-ONE_DL_images/partitioned_by_hospital/..., RIM-ONE_DL_reference_segmentations/"
    known = ("rim_one",)
    stratum = "diagnosis"
    disc = "-1-Disc-T.png"
    cup = "-1-Cup-T.png"
    files = (_partition("partitioned_by_hospital"),)
    examples = tuple(
        (
            f"RIM-ONE_DL_images/partitioned_by_hospital/{part}_set/{kind}/{release}_Im{{:03d}}.png",
            numbers,
        )
        for part, release, first, last in (("training", "r2", 1, 15), ("test", "r3", 15, 21))
        for kind, numbers in (
            ("glaucoma", range(first, last, 2)),
            ("normal", range(first + 1, last, 2)),
        )
    )

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
        partition: Literal["hospital", "random"] = "hospital",
    ) -> None:
        self._folder = {"hospital": "partitioned_by_hospital", "random": "partitioned_randomly"}[
            partition
        ]
        super().__init__(
            root=root, domains=domains, val_fraction=val_fraction, split_seed=split_seed
        )

    def layouts(self) -> Sequence[Layout]:
        """That of the partition."""
        return (_partition(self._folder),)
