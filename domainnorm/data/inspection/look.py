"""What a folder or a table of one's own images holds, as far as a first look at it tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import DomainDataset, Record
from domainnorm.data.folders import images_in, list_folders, list_images
from domainnorm.data.images import MASKS, Progress, read_all
from domainnorm.data.manifest import NAMES
from domainnorm.data.masks import read_mask
from domainnorm.data.refusals import attempted
from domainnorm.data.table import read_lines
from domainnorm.data.volumes.dicom_files import dicom_files
from domainnorm.errors import DataError, unknown
from domainnorm.registry import DATASETS

_MANIFEST = "manifest.csv"
_FINDINGS = {"0", "1", "-1", ""}
_MOST = 60  # images of a domain that are looked at
# What others call the columns of a manifest.
_USUAL = {
    "path": ("file", "filename", "file_name", "image", "image_path", "filepath"),
    "target": ("class", "label", "mask", "diagnosis"),
    "domain": ("site", "hospital", "centre", "center", "scanner", "stain", "camera", "city"),
    "split": ("subset", "set"),
    "group": ("patient", "patient_id", "subject", "case", "slide", "scene"),
}


@dataclass(frozen=True)
class Look:
    """What was seen.

    Args:
        name: Dataset that reads it.
        options: Its keys, ``root`` first.
        dataset: As it was made.
        sizes: Heights and widths of the images that were looked at, and how many have them.
        colours: Whether any of these is not grey.
        styles: For each domain, mean and spread of the colours of its images, (N, 6).
    """

    name: str
    options: dict[str, Any]
    dataset: DomainDataset
    sizes: Counter[tuple[int, int]]
    colours: bool
    styles: dict[str, NDArray[np.float64]]

    def labelled(self, domain: str, split: str | None = None) -> list[Record]:
        """Images of a domain that have a label, of one split or of all."""
        return [
            record
            for record in self.dataset.records
            if record.domain == domain and record.is_labelled and split in (None, record.split)
        ]

    def count(self, domain: str) -> int:
        """Number of images of a domain."""
        return sum(record.domain == domain for record in self.dataset.records)

    def class_counts(self, domains: Sequence[str]) -> dict[str, int]:
        """Training images of each class in some domains."""
        records = (one for name in domains for one in self.labelled(name, "train"))
        found = Counter(record.target for record in records)
        return {name: found[number] for number, name in enumerate(self.dataset.class_names)}

    def told_apart(self, first: Sequence[str], second: Sequence[str]) -> float | None:
        """Share of images that colours alone put into the right one of two groups of domains.

        Each is compared with the mean of the other images of both; 0.5 is chance. None for fewer
        than ten images.
        """
        both = [np.concatenate([self.styles[name] for name in names]) for names in (first, second)]
        if min(map(len, both)) < 5:
            return None
        spread = np.concatenate(both).std(0) + 1e-6
        both = [styles / spread for styles in both]
        shares = []
        for own, other in (both, both[::-1]):
            without = (own.sum(0) - own) / (len(own) - 1)
            near = np.square(own - without).sum(1)
            shares.append(float((near < np.square(own - other.mean(0)).sum(1)).mean()))
        return float(np.mean(shares))


def look_at(
    place: Path, keys: Mapping[str, Any] | None = None, progress: Progress | None = None
) -> Look:
    """Find out how a folder or table is laid out, and look at some images of each domain.

    Args:
        place: Folder of domains, or a table that lists images.
        keys: Further ones of the dataset that is found to read it.
        progress: Wraps the readings, of which it is told the number.

    Raises:
        DataError: It is of no layout that is known, or cannot be used as it is; the message says
            what to do.
    """
    if not place.exists():
        raise DataError(f"{place}: does not exist; name a folder of images, or a table of them")
    name, options = _official(place.absolute()) or _recognized(place.absolute())
    options |= keys or {}
    for key in keys or ():
        if key not in DATASETS.entry(name).parameters:
            known = DATASETS.entry(name).parameters
            raise DataError(f"data.{key}: {unknown(f'key of {name}', key, known)}")
    dataset, problems = attempted(lambda: DATASETS.load(name)(**options))
    if problems and "allow_missing_classes" in DATASETS.entry(name).parameters:
        # Where few images of a domain have a label, some class may have none.
        allowed = {**options, "allow_missing_classes": True}
        other, others = attempted(lambda: DATASETS.load(name)(**allowed))
        if not others:
            dataset, problems, options = other, others, allowed
    if dataset is None or problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        words = " ".join(f"{key}={value}" for key, value in options.items() if key != "root")
        command = f"domainnorm data check {name} {options['root']} {words}".strip()
        raise DataError(f"{problems[0]}{more}; all of it: {command}")
    chosen = [position for domain in dataset.domain_names for position in _spread(dataset, domain)]
    looked = list(read_all(lambda position: _looked(dataset, position), chosen, progress))
    return Look(
        name,
        options,
        dataset,
        Counter(size for size, _ in looked),
        any(not _is_grey(style) for _, style in looked),
        {
            domain: np.stack(
                [
                    style
                    for position, (_, style) in zip(chosen, looked, strict=True)
                    if dataset.records[position].domain == domain
                ]
            )
            for domain in dataset.domain_names
        },
    )


def _official(place: Path) -> tuple[str, dict[str, Any]] | None:
    """The published dataset that lies there as its authors ship it, if one does."""
    for name in DATASETS.names() if place.is_dir() else ():
        entry = DATASETS.entry(name)
        if entry.constants.get("licence") and "root" in entry.parameters:
            options = {"root": str(place)}
            dataset, problems = attempted(lambda: entry.load()(**options))  # noqa: B023
            if dataset is not None and not problems:
                return name, options
    return None


def _recognized(place: Path) -> tuple[str, dict[str, Any]]:
    """The dataset that reads a place, and its keys."""
    if place.is_file():
        return _table(place)
    if (place / _MANIFEST).is_file():
        return _table(place / _MANIFEST)
    root = {"root": str(place)}
    folders = [place / name for name in list_folders(place)]
    masked = any(list_images(folder / MASKS) for folder in folders)
    if masked or (place / "classes.txt").is_file():
        if not (place / "classes.txt").is_file():
            raise DataError(
                f"{place / 'classes.txt'}: missing; write the name of each class into it, one per "
                f"line, the first for 0{_numbers(folders)}"
            )
        return "folder_masks", root
    if any(list_images(folder) for folder in folders):
        return "folder", root
    if images_in(place):
        raise DataError(
            f"{place}: images without folders of domains; move those of each site, scanner or hour "
            "into a folder of its own, or let domains be found by style: domainnorm data domains "
            f"{place}"
        )
    if dicom_files(place):
        return "dicom", root
    if any(place.rglob("*.nii.gz")) or any(place.rglob("*.nii")):
        return "nifti", root
    raise DataError(
        f"{place}: no images; expected a folder for each domain (site, scanner, hour), with a "
        "folder of images for each class in it, or images alone where there are no labels, or "
        "images/ and masks/; or a table (docs/data.md)"
    )


def _numbers(folders: Sequence[Path]) -> str:
    """The numbers in some masks, for whoever has to name them."""
    masks = [folder / MASKS / name for folder in folders for name in list_images(folder / MASKS)]
    try:
        found = sorted({int(value) for mask in masks[:20] for value in np.unique(read_mask(mask))})
    except DataError:  # colours, say; reading the masks will tell
        return ""
    return f"; {', '.join(map(str, found))} are in the first masks, and 255 is for pixels without"


def _table(table: Path) -> tuple[str, dict[str, Any]]:
    lines = read_lines(table)
    names = list(lines[0])
    columns = {
        meaning: found
        for meaning, usual in _USUAL.items()
        if meaning not in names
        and (found := next((name for name in names if name.lower() in (meaning, *usual)), ""))
    }
    options: dict[str, Any] = {"root": str(table.parent), "table": table.name}
    if columns:
        options["columns"] = columns
    target = columns.get("target", "target")
    first = next(filter(None, (line.get(target, "") for line in lines)), "")
    if first:
        is_mask = (table.parent / first).is_file()
        return "manifest_masks" if is_mask else "manifest", options
    known = {columns.get(name, name) for name in NAMES}
    others = [name for name in names if name not in known]
    if any(_is_finding([line[name] for line in lines]) for name in others):
        return "manifest_findings", options
    return "manifest", options


def _is_finding(cells: Sequence[str]) -> bool:
    return {*cells} <= _FINDINGS and {"0", "1"} <= {*cells}


def _spread(dataset: DomainDataset, domain: str) -> list[int]:
    """Positions of some images of a domain, evenly over all of them."""
    own = [place for place, record in enumerate(dataset.records) if record.domain == domain]
    return own[:: -(-len(own) // _MOST)]


def _looked(dataset: DomainDataset, position: int) -> tuple[tuple[int, int], NDArray[np.float64]]:
    image = dataset.image(position)
    pixels = image.reshape(-1, 3).astype(np.float64)
    return (image.shape[0], image.shape[1]), np.concatenate([pixels.mean(0), pixels.std(0)])


def _is_grey(style: NDArray[np.float64]) -> bool:
    mean, spread = style[:3], style[3:]
    return float(np.ptp(mean)) < 1 and float(np.ptp(spread)) < 1
