"""Slices of NIfTI volumes with segmentations, one folder for each site."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import DOMAIN_KEYS, VOID, Record, select_domains
from domainnorm.data.drawings.volume import SCANNERS, draw_volume
from domainnorm.data.files import FileDataset, resolved_root
from domainnorm.data.official import draw_test, draw_validation
from domainnorm.data.volumes import (
    VolumeCache,
    check_window,
    import_medical,
    percentile_range,
    resample,
    to_grey,
    window_range,
)
from domainnorm.errors import DataError
from domainnorm.registry import register

_SUFFIXES = (".nii.gz", ".nii")
_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}


@register
class Nifti(FileDataset):
    """Slices of <site>/<case>.nii.gz and <site>/<case>_segmentation.nii.gz, a site being a domain.

    The layout of the multi-site prostate data of Liu et al. (sites BIDMC, BMC, HK, I2CVB, RUNMC,
    UCL), and of others brought into it. Volumes are turned to the nearest canonical orientation,
    so that an axis means the same in all; patients lie with their front up. Grey values are
    scaled by one range for the whole volume. A group is a case; test and validation splits are
    drawn by case. Reading is lazy, the volumes used last stay in memory.

    Args:
        root: Folder of the data: absolute, or relative to the folder that the environment
            variable DOMAINNORM_DATA names (``data`` when it is not set).
        domains: Sites to use, in this order; every folder with volumes when None.
        val_fraction: Share of the training slices to validate on, in (0, 1).
        test_fraction: Share of all slices to test on, in (0, 1).
        split_seed: Seed of drawn splits.
        classes: Names of the values of the segmentation, from 0; without it, every value above 0
            is ``foreground``.
        mask_suffix: What the names of segmentations have after the case, upper or lower case.
        axis: Direction across the slices.
        spacing: Distance between pixels after resampling, in mm; None keeps the volume's own.
        window: Centre and width of the grey values shown; None takes the 0.5 to 99.5
            percentiles of the volume.
        slices: ``labelled`` keeps slices with a class above 0, the usual practice for 2-D networks,
            which knows where the organ is, in target and test volumes too.
        cache_mb: Megabytes of volumes kept in memory by each process, after scaling.

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
        axis: Literal["sagittal", "coronal", "axial"] = "axial",
        spacing: float | None = None,
        window: list[float] | None = None,
        slices: Literal["all", "labelled"] = "all",
        cache_mb: int = 512,
    ) -> None:
        import_medical("nibabel")
        check_window("data.window", window)
        if spacing is not None and spacing <= 0:
            raise DataError(f"data.spacing: {spacing}, expected millimetres above 0")
        self.root = resolved_root(root)
        self.class_names = classes or ["background", "foreground"]
        self._merged = classes is None
        self._axis, self._spacing, self._window = _AXES[axis], spacing, window
        self._cache = VolumeCache(cache_mb)
        self._zooms: dict[str, tuple[float, ...]] = {}
        sites = {
            entry.name: cases
            for entry in sorted(self.root.iterdir())
            if entry.is_dir() and (cases := _cases(entry, mask_suffix))
        }
        if not sites:
            raise DataError(
                f"{self.root}: no volumes; expected {self.layout} (docs/data_medical.md)"
            )
        self.domain_names = select_domains(DOMAIN_KEYS, domains, list(sites))
        records = [
            record
            for site in self.domain_names
            for volume, mask in sites[site]
            for record in self._slices(site, volume, mask, slices)
        ]
        records = draw_test(records, test_fraction, split_seed)
        self.records = draw_validation(records, val_fraction, split_seed)

    def _slices(self, site: str, volume: Path, mask: Path, kept: str) -> list[Record]:
        head, truth = _open(volume), _open(mask)
        if head.shape[:3] != truth.shape[:3]:
            raise DataError(f"{mask}: shape {truth.shape}, but {volume.name} has {head.shape}")
        positions = range(head.shape[self._axis])
        if kept == "labelled":
            others = tuple(axis for axis in range(3) if axis != self._axis)
            marked = np.asarray(truth.dataobj) > 0
            positions = np.flatnonzero(marked.any(others)).tolist()
        names = [file.relative_to(self.root).as_posix() for file in (volume, mask)]
        zooms = tuple(float(zoom) for zoom in head.header.get_zooms())
        self._zooms.update(dict.fromkeys(names, zooms))
        millimetres = " × ".join(f"{zoom:.3g}" for zoom in zooms)
        return [
            Record(
                f"{names[0]}#{position}",
                site,
                -1,
                f"{site}/{_stem(volume)}",
                "train",
                mask=f"{names[1]}#{position}",
                metadata={"slice": str(position), "spacing": millimetres},
            )
            for position in positions
        ]

    def image(self, index: int) -> NDArray[np.uint8]:
        """One slice: (H, W, 3), three equal channels, 0 to 255.

        Raises:
            DataError: The volume cannot be read; the message names it.
        """
        plane = self._plane(self.records[index].file, classes=False)
        return np.repeat(plane[..., None], 3, axis=-1)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Classes of one slice: (H, W).

        Raises:
            DataError: The segmentation cannot be read, or has a value without a name.
        """
        record = self.records[index]
        if record.mask is None:
            raise DataError(f"{record.file}: no mask is known for this image")
        return self._plane(record.mask, classes=True)

    def _plane(self, name: str, *, classes: bool) -> NDArray[np.uint8]:
        file, _, position = name.rpartition("#")
        load = self._load_classes if classes else self._load_grey
        volume = self._cache.get(file, lambda: load(self.root / file))
        # Columns run from left to right, rows from front to back or from head to feet.
        plane = np.ascontiguousarray(np.rot90(np.take(volume, int(position), self._axis)))
        if self._spacing is None:
            return plane
        columns, rows = (zoom for axis, zoom in enumerate(self._zooms[file]) if axis != self._axis)
        return resample(plane, (rows, columns), self._spacing, classes=classes)

    def _load_grey(self, file: Path) -> NDArray[np.uint8]:
        values = _values(file)
        bounds = window_range(self._window) if self._window else percentile_range(values)
        return to_grey(values, *bounds)

    def _load_classes(self, file: Path) -> NDArray[np.uint8]:
        values = np.round(_values(file))
        if self._merged:
            return (values > 0).astype(np.uint8)
        wrong = np.setdiff1d(np.unique(values), [*range(len(self.class_names)), VOID])
        if wrong.size:
            raise DataError(
                f"{file}: values {', '.join(f'{value:g}' for value in wrong[:5])}, expected 0 to "
                f"{len(self.class_names) - 1} as named by data.classes"
            )
        return values.astype(np.uint8)

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write 8 drawn cases at each of three sites, 64 × 64 × 8 voxels."""
        nibabel = import_medical("nibabel")
        for site, name in enumerate(("BIDMC", "HK", "RUNMC")):
            folder = root / name
            folder.mkdir(parents=True, exist_ok=True)
            for case in range(8):
                generator = np.random.default_rng([seed, site, case])
                volume, organ = draw_volume(generator, SCANNERS[site], (64, 64, 8))
                affine = np.diag([3.0, 3.0, 9.0, 1.0])
                stem = folder / f"Case{case:02d}"
                nibabel.save(nibabel.Nifti1Image(volume, affine), f"{stem}.nii.gz")
                nibabel.save(nibabel.Nifti1Image(organ, affine), f"{stem}_segmentation.nii.gz")


def _stem(file: Path) -> str:
    return file.name.removesuffix(".gz").removesuffix(".nii")


def _cases(site: Path, mask_suffix: str) -> list[tuple[Path, Path]]:
    """Volumes of a site with their segmentations, sorted."""
    files = [file for file in site.iterdir() if file.name.lower().endswith(_SUFFIXES)]
    # Sites write the suffix differently: Case00_segmentation, Case05_Segmentation.
    by_stem = {_stem(file).lower(): file for file in files if file.name[0] != "."}
    suffix = mask_suffix.lower()
    cases = []
    for stem, file in sorted(by_stem.items()):
        if stem.endswith(suffix):
            continue
        if stem + suffix not in by_stem:
            raise DataError(
                f"{file}: no segmentation {_stem(file)}{mask_suffix}.nii.gz beside it; add it, "
                "remove the volume, or set data.mask_suffix"
            )
        cases.append((file, by_stem[stem + suffix]))
    return cases


def _open(file: Path) -> Any:
    """The volume in canonical orientation; its header is read, its values are not."""
    nibabel = import_medical("nibabel")
    try:
        volume = nibabel.as_closest_canonical(nibabel.load(file))
    except (OSError, nibabel.filebasedimages.ImageFileError, ValueError) as error:
        raise DataError(f"{file}: not a readable NIfTI file ({error}); replace it") from error
    if len(volume.shape) != 3:
        raise DataError(f"{file}: shape {volume.shape}, expected a volume of three dimensions")
    return volume


def _values(file: Path) -> NDArray[np.float32]:
    try:
        return np.asarray(_open(file).dataobj, dtype=np.float32)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{file}: truncated or damaged ({error}); replace it") from error
