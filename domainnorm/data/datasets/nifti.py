"""Slices of NIfTI volumes with segmentations, one folder for each site."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from domainnorm.data.dataset import DOMAIN_KEYS, Record, resolved_root, select_domains
from domainnorm.data.datasets.drawing import draw_volume
from domainnorm.data.datasets.layout import draw_split
from domainnorm.data.refusals import LeftOut, refuse, refusing
from domainnorm.data.volumes.grey_values import import_medical
from domainnorm.data.volumes.nifti_slices import (
    NiftiSlices,
    check_affines,
    is_volume,
    load_values,
    open_volume,
    stem_of,
)
from domainnorm.errors import DataError
from domainnorm.registry import register


@register
class Nifti(NiftiSlices):
    """Slices of <site>/<case>.nii.gz and <site>/<case>_segmentation.nii.gz; a site is a domain.

    The layout of the multi-site prostate data of Liu et al. (sites BIDMC, BMC, HK, I2CVB, RUNMC,
    UCL), and of other data in the same layout. Volumes are turned to the nearest canonical
    orientation, so that an axis means the same in all; the front of the patient is up. One range
    scales the grey values of a whole volume. A group is a case; test and validation splits are
    drawn by case. Volumes are read when needed; the last ones stay in memory.

    Args:
        root: Folder of the data: absolute, or relative to the folder that the environment
            variable DOMAINNORM_DATA names (``data`` when it is not set).
        domains: Sites to use, in this order; null for every folder with volumes.
        val_fraction: Share of the training slices to validate on, in (0, 1).
        test_fraction: Share of all slices to test on, in (0, 1).
        split_seed: Seed of drawn splits.
        classes: Names of the values of the segmentation, from 0; null makes every value above 0
            ``foreground``.
        mask_suffix: Suffix of the names of segmentations after the case, in upper or lower case.
        slices: ``all``, or ``labelled`` for slices with a class above 0. ``labelled`` is usual for
            2-D networks, but uses the position of the organ in target and test volumes too.
        kwargs: ``axis``, ``spacing``, ``window`` and ``cache_mb`` of `NiftiSlices`.

    Raises:
        DataError: The package nibabel, a site, a segmentation or a file is missing or does not
            fit its volume; the message names it.

    Reference:
        Liu, Dou & Heng, "Shape-aware meta-learning for generalizing prostate MRI segmentation to
        unseen domains", MICCAI 2020, arXiv:2007.02035.
    """

    task = "segmentation"
    homepage = "https://liuquande.github.io/SAML/"
    licence = "research use; each site's own terms"
    layout = "<site>/<case>.nii.gz, <site>/<case>_segmentation.nii.gz"

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.3,
        split_seed: int = 0,
        classes: list[str] | None = None,
        mask_suffix: str = "_segmentation",
        slices: Literal["all", "labelled"] = "all",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.root = resolved_root(root)
        self.class_names = classes or ["background", "foreground"]
        self.merged = classes is None
        sites = {
            entry.name: cases
            for entry in sorted(self.root.iterdir())
            if entry.is_dir() and (cases := _cases(entry, mask_suffix, self.left_out))
        }
        if not sites:
            raise DataError(
                f"{self.root}: no volumes; expected {self.layout} (docs/data_medical.md)"
            )
        self.domain_names = select_domains(DOMAIN_KEYS, domains, list(sites))
        records: list[Record] = []
        for site in self.domain_names:
            for volume, mask in sites[site]:
                with refusing():
                    records += self._slices(site, volume, mask, slices)
        records = draw_split(records, "test", test_fraction, split_seed)
        self.records = draw_split(records, "val", val_fraction, split_seed)

    def _slices(self, site: str, volume: Path, mask: Path, kept: str) -> list[Record]:
        head, truth = open_volume(volume), open_volume(mask)
        if head.shape[:3] != truth.shape[:3]:
            raise DataError(f"{mask}: shape {truth.shape}, but {volume.name} has {head.shape}")
        check_affines(head, truth, volume, mask)
        positions = range(head.shape[self.axis])
        if kept == "labelled":
            others = tuple(axis for axis in range(3) if axis != self.axis)
            marked = load_values(mask) > 0
            positions = np.flatnonzero(marked.any(others)).tolist()
        names = [file.relative_to(self.root).as_posix() for file in (volume, mask)]
        zooms = tuple(float(zoom) for zoom in head.header.get_zooms())
        self.zooms.update(dict.fromkeys(names, zooms))
        millimetres = " × ".join(f"{zoom:.3g}" for zoom in zooms)
        return [
            Record(
                f"{names[0]}#{position}",
                site,
                -1,
                f"{site}/{stem_of(volume)}",
                "train",
                mask=f"{names[1]}#{position}",
                metadata={"slice": str(position), "spacing": millimetres},
            )
            for position in positions
        ]

    @classmethod
    def write_sample(
        cls, root: Path, *, seed: int = 0, domains: Sequence[str] = ("BIDMC", "HK", "RUNMC")
    ) -> None:
        """Write 12 drawn cases at each site, 64 × 64 × 8 voxels."""
        nibabel = import_medical("nibabel")
        for site, name in enumerate(domains):
            folder = root / name
            folder.mkdir(parents=True, exist_ok=True)
            for case in range(12):
                generator = np.random.default_rng([seed, site, case])
                volume, organ = draw_volume(generator, name, (64, 64, 8))
                affine = np.diag([3.0, 3.0, 9.0, 1.0])
                stem = folder / f"Case{case:02d}"
                nibabel.save(nibabel.Nifti1Image(volume, affine), f"{stem}.nii.gz")
                nibabel.save(nibabel.Nifti1Image(organ, affine), f"{stem}_segmentation.nii.gz")


def _cases(site: Path, mask_suffix: str, left_out: LeftOut) -> list[tuple[Path, Path]]:
    """Volumes of a site with their segmentations, sorted; told of those without a volume."""
    files = [file for file in site.iterdir() if is_volume(file)]
    # Sites write the suffix differently: Case00_segmentation, Case05_Segmentation.
    by_stem = {stem_of(file).lower(): file for file in files if file.name[0] != "."}
    suffix = mask_suffix.lower()
    cases = []
    for stem, file in sorted(by_stem.items()):
        if stem.endswith(suffix):
            if stem.removesuffix(suffix) not in by_stem:
                left_out.add("segmentation without a volume", f"{site.name}/{file.name}")
            continue
        if stem + suffix not in by_stem:
            refuse(
                f"{file}: no segmentation {stem_of(file)}{mask_suffix}.nii.gz beside it; add it, "
                "remove the volume, or set data.mask_suffix"
            )
            continue
        cases.append((file, by_stem[stem + suffix]))
    return cases
