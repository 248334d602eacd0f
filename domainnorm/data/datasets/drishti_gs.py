"""Drishti-GS1: optic disc and cup, 101 photographs with the votes of four experts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import DOMAIN_KEYS, Record, resolved_root, select_domains
from domainnorm.data.datasets.retina import DiscCupDataset
from domainnorm.data.drawings.fundus import write_disc_cups
from domainnorm.data.official import draw_validation, read_grey, require_file
from domainnorm.errors import DataError
from domainnorm.registry import register

_DISC, _CUP = "_ODsegSoftmap.png", "_cupsegSoftmap.png"
_HALVES: tuple[tuple[Literal["train", "test"], str, str], ...] = (
    ("train", "Training", "GT"),
    ("test", "Test", "Test_GT"),
)


@register
class DrishtiGs(DiscCupDataset):
    """Optic disc and cup in 101 photographs of about 2047 × 1760 pixels (Aravind eye hospital).

    Soft maps hold the share of four experts that marked a pixel, as a grey value; a pixel is disc
    or cup when more than half of them say so. The official 50 training and 51 test images are
    used; a validation split is drawn from the former. Every image is its own group.

    Args:
        root: Folder of the data: absolute, or relative to the folder that the environment
            variable DOMAINNORM_DATA names (``data`` when it is not set).
        domains: Domains to use; there is one, ``drishti_gs``.
        val_fraction: Share of the training images to validate on, in (0, 1).
        split_seed: Seed of the drawn validation split.
        region: As for ``refuge``: ``image``, or the square around the ``disc``.

    Raises:
        DataError: The root, a folder or a file is missing; the message names it.

    Reference:
        Sivaswamy et al., "Drishti-GS: retinal image dataset for optic nerve head segmentation",
        ISBI 2014.
    """

    homepage = "https://cvit.iiit.ac.in/projects/mip/drishti-gs/mip-dataset2/Home.php"
    licence = "not stated; research use"
    layout = "Drishti-GS1_files/{Training,Test}/Images/*.png, Training/GT and Test/Test_GT"

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
        region: Literal["image", "disc"] = "image",
    ) -> None:
        self.root = resolved_root(root)
        self.domain_names = select_domains(DOMAIN_KEYS, domains, ["drishti_gs"])
        records = [record for half in _HALVES for record in self._half(*half)]
        self.records = draw_validation(records, val_fraction, split_seed)
        self._locate(region)

    def _half(self, split: Literal["train", "test"], half: str, truth: str) -> list[Record]:
        top = self.root / "Drishti-GS1_files"
        folder = (top if top.is_dir() else self.root) / half
        # Later downloads sort the images into GLAUCOMA and NORMAL.
        images = sorted((folder / "Images").rglob("*.png"))
        if not images:
            raise DataError(
                f"{folder / 'Images'}: no .png files; expected below data.root: {self.layout} "
                "(docs/data_medical.md)"
            )
        return [
            Record(
                image.relative_to(self.root).as_posix(),
                "drishti_gs",
                -1,
                f"drishti_gs/{image.stem}",
                split,
                mask=self._soft_map(folder / truth, image).relative_to(self.root).as_posix(),
            )
            for image in images
        ]

    def _soft_map(self, truth: Path, image: Path) -> Path:
        folder = truth / image.stem / "SoftMap"
        require_file(folder / f"{image.stem}{_CUP}", image)
        return require_file(folder / f"{image.stem}{_DISC}", image)

    def _decoded(self, file: str) -> NDArray[np.uint8]:
        disc = read_grey(self.root / file) > 127
        cup = read_grey(self.root / (file.removesuffix(_DISC) + _CUP)) > 127
        return np.where(cup, 2, np.where(disc, 1, 0)).astype(np.uint8)

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write 16 drawn photographs of 96 × 112 pixels in the official layout."""
        files = []
        for _, half, truth in _HALVES:
            folder = root / "Drishti-GS1_files" / half
            for number in range(1, 11) if half == "Training" else range(11, 17):
                stem = f"drishtiGS_{number:03d}"
                maps = folder / truth / stem / "SoftMap" / stem
                files.append(
                    (
                        folder / "Images" / f"{stem}.png",
                        {
                            maps.with_name(stem + _DISC): (0, 255, 255),
                            # Three of four experts agree on the cup.
                            maps.with_name(stem + _CUP): (0, 0, 191),
                        },
                    )
                )
        write_disc_cups(files, camera="drishti", size=(96, 112), seed=seed + 2_000)
