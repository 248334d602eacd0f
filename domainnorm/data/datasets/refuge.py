"""REFUGE: optic disc and cup, 1200 photographs of two cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import DOMAIN_KEYS, Record, Split, resolved_root, select_domains
from domainnorm.data.datasets.retina import DiscCupDataset
from domainnorm.data.drawings.fundus import write_disc_cups
from domainnorm.data.official import draw_test, draw_validation, list_files, read_grey, require_file
from domainnorm.registry import register

# Images, their masks, and what both archives are called: unpackers differ in whether they put
# the content into a folder of the archive's name.
_ZEISS = ("Training400", "Annotation-Training400")
_CANON: tuple[tuple[Split, str, str], ...] = (
    ("train", "REFUGE-Validation400", "REFUGE-Validation400-GT"),
    ("test", "Test400", "REFUGE-Test-GT"),
)
_CODES = (255, 128, 0)  # background, disc, cup


@register
class Refuge(DiscCupDataset):
    """Optic disc and cup in 400 photographs of ``refuge_zeiss`` and 800 of ``refuge_canon``.

    The challenge's training images come from a Zeiss Visucam 500, its validation and test images
    from a Canon CR-2; here the cameras are the domains. ``refuge_zeiss``: Training400, test and
    validation splits drawn, as much of either diagnosis in each. ``refuge_canon``:
    Validation400 trains (its masks are public), Test400 tests, a validation split is drawn. Every
    image is its own group, since the patients are not told.

    Args:
        root: Folder of the data: absolute, or relative to the folder that the environment
            variable DOMAINNORM_DATA names (``data`` when it is not set).
        domains: Domains to use, in this order; both when None.
        val_fraction: Share of the training images to validate on, in (0, 1).
        test_fraction: Share of Training400 to test ``refuge_zeiss`` on, in (0, 1).
        split_seed: Seed of drawn splits.
        region: ``image`` is the whole photograph; ``disc`` is a square around the disc, 2.5
            diameters wide, which data that are cut out already (RIM-ONE DL) need beside them. Its
            place comes from the mask, on target domains too, as in the public multi-site benchmark.

    Raises:
        DataError: The root, a folder or a file is missing; the message names it.

    Reference:
        Orlando et al., "REFUGE Challenge", Medical Image Analysis 59, 2020, arXiv:1910.03667.
        Cut-outs: Wang et al., "DoFE", IEEE TMI 39(12), 2020, arXiv:2010.06208.
    """

    homepage = "https://refuge.grand-challenge.org"
    licence = "research use; registration"
    layout = (
        "Training400, Annotation-Training400, REFUGE-Validation400{,-GT}, Test400, REFUGE-Test-GT"
    )

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.3,
        split_seed: int = 0,
        region: Literal["image", "disc"] = "image",
    ) -> None:
        self.root = resolved_root(root)
        known = ["refuge_zeiss", "refuge_canon"]
        self.domain_names = select_domains(DOMAIN_KEYS, domains, known)
        records: list[Record] = []
        for name in self.domain_names:
            records += self._zeiss() if name == "refuge_zeiss" else self._canon()
        records = draw_test(records, test_fraction, split_seed, stratum="diagnosis")
        self.records = draw_validation(records, val_fraction, split_seed, stratum="diagnosis")
        self._locate(region)

    def _zeiss(self) -> list[Record]:
        images, masks = (self._unpacked(name) for name in _ZEISS)
        return [
            self._record("refuge_zeiss", "train", image, masks / "Disc_Cup_Masks" / folder, folder)
            for folder in ("Glaucoma", "Non-Glaucoma")
            for image in list_files(images / folder, ".jpg", layout=self.layout)
        ]

    def _canon(self) -> list[Record]:
        records = []
        for split, images, masks in _CANON:
            truth = self._unpacked(masks) / "Disc_Cup_Masks"
            for image in list_files(self._unpacked(images), ".jpg", layout=self.layout):
                # Test masks are sorted into G(laucoma) and N(o glaucoma), the others are not.
                held = [
                    entry
                    for entry in ("", "G", "N")
                    if (truth / entry / f"{image.stem}.bmp").is_file()
                ]
                folder = held[0] if held else ""
                diagnosis = {"G": "Glaucoma", "N": "Non-Glaucoma"}.get(folder, "unknown")
                records.append(
                    self._record("refuge_canon", split, image, truth / folder, diagnosis)
                )
        return records

    def _unpacked(self, name: str) -> Path:
        archive = {
            "Training400": "REFUGE-Training400",
            "Test400": "REFUGE-Test400",
        }.get(name, name)
        inside = self.root / archive / name
        return inside if inside.is_dir() else self.root / name

    def _record(
        self, domain: str, split: Split, image: Path, masks: Path, diagnosis: str
    ) -> Record:
        mask = require_file(masks / f"{image.stem}.bmp", image)
        return Record(
            image.relative_to(self.root).as_posix(),
            domain,
            -1,
            f"refuge/{image.stem}",
            split,
            mask=mask.relative_to(self.root).as_posix(),
            metadata={"diagnosis": diagnosis.lower()},
        )

    def _decoded(self, file: str) -> NDArray[np.uint8]:
        grey = read_grey(self.root / file)
        # Masks are lossless, but some copies were resampled: the nearest code counts.
        return np.where(grey < 64, 2, np.where(grey < 192, 1, 0)).astype(np.uint8)

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write 44 drawn photographs of 96 × 100 pixels in the official layout."""
        train, truth = root / "Training400", root / "Annotation-Training400/Disc_Cup_Masks"
        kinds = (("Glaucoma", "g", 6), ("Non-Glaucoma", "n", 18))
        zeiss = [
            (train / kind / f"{letter}{n:04d}.jpg", {truth / kind / f"{letter}{n:04d}.bmp": _CODES})
            for kind, letter, count in kinds
            for n in range(1, count + 1)
        ]
        write_disc_cups(zeiss, camera="zeiss", size=(96, 100), seed=seed)
        canon = [
            (
                root / "REFUGE-Validation400" / f"V{n:04d}.jpg",
                {root / "REFUGE-Validation400-GT/Disc_Cup_Masks" / f"V{n:04d}.bmp": _CODES},
            )
            for n in range(1, 13)
        ]
        tested = root / "REFUGE-Test-GT/Disc_Cup_Masks"
        canon += [
            (root / "Test400" / f"T{n:04d}.jpg", {tested / "GN"[n % 2] / f"T{n:04d}.bmp": _CODES})
            for n in range(1, 9)
        ]
        write_disc_cups(canon, camera="canon", size=(96, 100), seed=seed + 1_000)
