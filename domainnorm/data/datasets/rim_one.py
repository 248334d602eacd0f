"""RIM-ONE DL: optic disc and cup, 485 photographs cut out around the disc."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import DOMAIN_KEYS, Record, resolved_root, select_domains
from domainnorm.data.datasets.retina import DiscCupDataset
from domainnorm.data.drawings.fundus import write_disc_cups
from domainnorm.data.official import draw_validation, list_files, read_grey, require_file
from domainnorm.errors import DataError
from domainnorm.registry import register

_DISC, _CUP = "-1-Disc-T.png", "-1-Cup-T.png"
_SPLITS: tuple[tuple[Literal["train", "test"], str], ...] = (
    ("train", "training_set"),
    ("test", "test_set"),
)


@register
class RimOne(DiscCupDataset):
    """Optic disc and cup in the 485 images of RIM-ONE DL (not r3): 313 normal, 172 with glaucoma.

    The images of releases r1, r2 and r3, of three Spanish hospitals, cut out around the optic
    disc; so the other datasets of discs need ``region: disc`` beside it. Official partitions are
    used; a validation split is drawn from the training set. Every image is its own group, since
    the patients are not told.

    Args:
        root: Folder of the data: absolute, or relative to the folder that the environment
            variable DOMAINNORM_DATA names (``data`` when it is not set).
        domains: Domains to use; there is one, ``rim_one``.
        val_fraction: Share of the training images to validate on, in (0, 1).
        split_seed: Seed of the drawn validation split.
        partition: Which official one: ``hospital`` trains on one hospital (311 images) and tests
            on the two others (174); ``random`` mixes them (339 and 146).

    Raises:
        DataError: The root, a folder or a file is missing; the message names it.

    Reference:
        Fumero et al., "RIM-ONE DL: a unified retinal image database for assessing glaucoma using
        deep learning", Image Analysis & Stereology 39(3), 2020.
    """

    homepage = "https://github.com/miag-ull/rim-one-dl"
    licence = "research and education; not commercial"
    layout = "RIM-ONE_DL_images/partitioned_by_hospital/..., RIM-ONE_DL_reference_segmentations/"

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
        partition: Literal["hospital", "random"] = "hospital",
    ) -> None:
        self.root = resolved_root(root)
        self.domain_names = select_domains(DOMAIN_KEYS, domains, ["rim_one"])
        name = {"hospital": "partitioned_by_hospital", "random": "partitioned_randomly"}[partition]
        records = [
            self._record(image, split, kind)
            for split, part in _SPLITS
            for kind in ("glaucoma", "normal")
            for image in list_files(
                self.root / "RIM-ONE_DL_images" / name / part / kind, ".png", layout=self.layout
            )
        ]
        self.records = draw_validation(records, val_fraction, split_seed, stratum="diagnosis")
        self._locate("image")

    def _record(self, image: Path, split: Literal["train", "test"], kind: str) -> Record:
        masks = self.root / "RIM-ONE_DL_reference_segmentations" / kind
        require_file(masks / f"{image.stem}{_CUP}", image)
        mask = require_file(masks / f"{image.stem}{_DISC}", image)
        return Record(
            image.relative_to(self.root).as_posix(),
            "rim_one",
            -1,
            f"rim_one/{image.stem}",
            split,
            mask=mask.relative_to(self.root).as_posix(),
            metadata={"diagnosis": kind, "release": image.stem.partition("_")[0]},
        )

    def _decoded(self, file: str) -> NDArray[np.uint8]:
        disc = read_grey(self.root / file) > 127
        inner = file.removesuffix(_DISC) + _CUP
        cup = read_grey(self.root / inner) > 127
        if cup.shape != disc.shape:
            raise DataError(f"{self.root / inner}: another size than {file}; restore both files")
        return np.where(cup, 2, np.where(disc, 1, 0)).astype(np.uint8)

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write 20 drawn images of 96 × 96 pixels in the official layout, by hospital."""
        files = []
        images = root / "RIM-ONE_DL_images/partitioned_by_hospital"
        for number in range(20):
            kind = ("glaucoma", "normal")[number % 2]
            part, release = ("training_set", "r2") if number < 14 else ("test_set", "r3")
            stem = f"{release}_Im{number + 1:03d}"
            masks = root / "RIM-ONE_DL_reference_segmentations" / kind
            files.append(
                (
                    images / part / kind / f"{stem}.png",
                    {
                        masks / f"{stem}{_DISC}": (0, 255, 255),
                        masks / f"{stem}{_CUP}": (0, 0, 255),
                    },
                )
            )
        write_disc_cups(files, camera="rim_one", size=(96, 96), seed=seed + 3_000)
