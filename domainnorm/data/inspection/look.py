"""What a folder or a table of one's own images holds, as far as a first look at it tells."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import (
    DomainDataset,
    Record,
    check_mask_values,
    data_folder,
    evenly,
)
from domainnorm.data.folders import images_in, list_folders, list_images
from domainnorm.data.images import IMAGES, INPUT, MASKS, TARGET, Progress, read_all, read_size
from domainnorm.data.inspection.survey import DARK
from domainnorm.data.manifest import NAMES
from domainnorm.data.masks import VOID, read_mask
from domainnorm.data.refusals import attempted
from domainnorm.data.table import USUAL, plain, read_lines
from domainnorm.data.volumes.dicom_files import dicom_files
from domainnorm.errors import DataError
from domainnorm.registry import DATASETS

_MANIFEST = "manifest.csv"
_IMAGES = {"images", "image", "imgs", "img"}  # folders, in lower case
_MASKS = {"masks", "mask", "labels", "label", "gt", "groundtruth", "ground_truth"} | {
    f"{name}{end}" for name in ("annotation", "segmentation", "seg") for end in ("", "s")
}
_INPUTS = {INPUT, "inputs", "lq", "lr", "noisy", "blurred", "degraded"}  # of pairs
_CLEAN = {TARGET, "targets", "gt", "groundtruth", "ground_truth", "hq", "hr", "clean"}
_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
_FINDINGS = {"0", "1", "-1", ""}
_MOST = 60  # images of a domain that are looked at
# What others call the columns of a manifest.
_USUAL = {
    "path": ("file", "filename", "image", "imagepath", "filepath", "png"),
    "target": ("class", "mask", *USUAL["class"]),
    "domain": ("site", "hospital", "centre", "center", "scanner", "stain", "camera", "city"),
    "split": USUAL["split"],
    "group": USUAL["group"],
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
        brightest: Largest value of a pixel in them, 0 to 255.
        styles: For each domain, mean and spread of the colours of its images, (N, 6).
    """

    name: str
    options: dict[str, Any]
    dataset: DomainDataset
    sizes: Counter[tuple[int, int]]
    colours: bool
    brightest: int
    styles: dict[str, NDArray[np.float64]]

    @property
    def is_dark(self) -> bool:
        """Whether the images are nearly black, as those of 12 bits in files of 16."""
        return self.brightest < DARK

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

        Means of every other image of a group are what the rest are compared with, and the other
        way round, so that 0.5 is chance. None for fewer than ten images.
        """
        both = [np.concatenate([self.styles[name] for name in names]) for names in (first, second)]
        if min(map(len, both)) < 5:
            return None
        spread = np.concatenate(both).std(0) + 1e-6
        shares = []
        for half in (0, 1):
            centres = [(styles[half::2] / spread).mean(0) for styles in both]
            for group, styles in enumerate(both):
                apart = [np.square(styles[1 - half :: 2] / spread - one).sum(1) for one in centres]
                shares.append(float((apart[group] < apart[1 - group]).mean()))
        return float(np.mean(shares))


def look_at(name: str, options: Mapping[str, Any], progress: Progress | None = None) -> Look:
    """Look at some images of each domain, and at their masks.

    Args:
        name: Dataset.
        options: Its keys; ``allow_missing_classes`` is added where a domain with few labels lacks
            a class.
        progress: Wraps the readings, of which it is told the number.

    Raises:
        DataError: It cannot be used as it is; the message says what to do.
    """
    options = dict(options)
    dataset, problems = attempted(lambda: DATASETS.load(name)(**options))
    if problems and "allow_missing_classes" in DATASETS.entry(name).parameters:
        allowed = {**options, "allow_missing_classes": True}
        other, others = attempted(lambda: DATASETS.load(name)(**allowed))
        if not others:
            dataset, problems, options = other, others, allowed
    if dataset is None or problems:
        more = f" (and {len(problems) - 1} more; domainnorm data check says all)"
        raise DataError(f"{problems[0]}{more if len(problems) > 1 else ''}")
    places: dict[str, list[int]] = {name: [] for name in dataset.domain_names}
    for position, record in enumerate(dataset.records):
        places[record.domain].append(position)
    chosen = [position for own in places.values() for position in evenly(own, _MOST)]
    looked = list(read_all(lambda position: _looked(dataset, position), chosen, progress))
    check_mask_values(dataset, chosen)
    styles: dict[str, list[NDArray[np.float64]]] = {name: [] for name in dataset.domain_names}
    for position, one in zip(chosen, looked, strict=True):
        styles[dataset.records[position].domain].append(one.style)
    return Look(
        name,
        options,
        dataset,
        Counter(one.size for one in looked),
        any(not _is_grey(one.style) for one in looked),
        max(one.brightest for one in looked),
        {domain: np.stack(own) for domain, own in styles.items()},
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


def recognized(source: str) -> tuple[str, dict[str, Any]]:
    """The dataset that reads a folder or table, and its keys.

    Args:
        source: As it is, or below the folder that DOMAINNORM_DATA names.

    Raises:
        DataError: There is no such place, or it is of no layout that is known; the message says
            what to do.
    """
    place = next((one for one in (Path(source), data_folder() / source) if one.exists()), None)
    if place is None:
        raise DataError(f"{source}: does not exist; name a folder of images, or a table of them")
    place = place.absolute()
    return _official(place) or _recognized(place)


def _recognized(place: Path) -> tuple[str, dict[str, Any]]:
    if place.is_file():
        return _table(place)
    if (place / _MANIFEST).is_file():
        return _table(place / _MANIFEST)
    if (found := _of_domains(place)) is not None:
        return found
    if images_in(place):
        raise DataError(
            f"{place}: images without folders of domains; move the images of each site, scanner or "
            "hour into a folder of their own, or find domains by style: domainnorm data domains "
            f"{shlex.quote(str(place))}"
        )
    if dicom_files(place):
        return "dicom", {"root": str(place)}
    if any(place.rglob("*.nii.gz")) or any(place.rglob("*.nii")):
        return "nifti", {"root": str(place)}
    raise DataError(
        f"{place}: no images; expected a folder for each domain (site, scanner, hour). It contains "
        "a folder of images for each class, or images/ and masks/, or only images if they have no "
        "labels. Or give a table (docs/data.md)"
    )


def _of_domains(place: Path) -> tuple[str, dict[str, Any]] | None:
    """The dataset of folders with images, one for each domain; None without such folders."""
    root = {"root": str(place)}
    names = [name for name in list_folders(place) if list_images(place / name)]
    folders = [place / name for name in names]
    _check_names(place, names)
    masked = any(list_images(folder / MASKS) for folder in folders)
    if masked or (place / "classes.txt").is_file():
        if not (place / "classes.txt").is_file():
            raise DataError(
                f"{place / 'classes.txt'}: missing; write one class name per line into it, the "
                f"first for pixel value 0{_numbers(folders)}"
            )
        return "folder_masks", root
    if any(list_images(folder / INPUT) and list_images(folder / TARGET) for folder in folders):
        return "pairs", {**root, **_scale(folders)}
    for folder in folders:
        _check_other_names(folder, _IMAGES, _MASKS, "masks", f"{MASKS} and {IMAGES}")
        if len(list_folders(folder)) == 2:  # beside further ones they are classes
            _check_other_names(folder, _INPUTS, _CLEAN, "clean images", f"{TARGET} and {INPUT}")
    return ("folder", root) if folders else None


def _check_names(place: Path, names: Sequence[str]) -> None:
    """Refuse folders that are no domains by their names: of one domain, or of splits."""
    plain_names = {name.lower() for name in names}
    paired = plain_names == {INPUT, TARGET}
    if plain_names and (paired or plain_names <= {*_IMAGES, *_MASKS}):
        kind = INPUT if paired else IMAGES
        raise DataError(
            f"{place}: {' and '.join(names)} belong to one domain; move them into a folder of that "
            f"domain, {place.name}/<domain>/{kind} and so on, beside those of other domains"
        )
    if plain_names and plain_names <= _SPLITS:
        raise DataError(
            f"{place}: {' and '.join(names)} seem to be splits, and folders here are domains "
            "(sites, scanners, hours); make a folder for each domain, and write given splits into "
            "splits.csv (docs/data.md)"
        )


def _check_other_names(
    folder: Path, inputs: set[str], outputs: set[str], what: str, right: str
) -> None:
    """Refuse masks, or clean images, that lie in a folder of another name: it would be a class."""
    below = {name.lower(): name for name in list_folders(folder)}
    for first in inputs & below.keys():
        for second in outputs & below.keys():
            stems = [
                {PurePosixPath(file).stem for file in list_images(folder / below[name])}
                for name in (first, second)
            ]
            if len(stems[0] & stems[1]) * 2 > len(stems[1]):
                raise DataError(
                    f"{folder}: '{below[second]}' seems to hold the {what} of '{below[first]}'; "
                    f"rename the two folders to {right}"
                )


def _scale(folders: Sequence[Path]) -> dict[str, int]:
    """How many times as many pixels clean images have along each side, by the first pair."""
    for folder in folders:
        inputs = {PurePosixPath(name).with_suffix(""): name for name in list_images(folder / INPUT)}
        for name in list_images(folder / TARGET):
            if (own := inputs.get(PurePosixPath(name).with_suffix(""))) is not None:
                scale = read_size(folder / TARGET / name)[0] // read_size(folder / INPUT / own)[0]
                return {"scale": scale} if scale > 1 else {}
    return {}


def _numbers(folders: Sequence[Path]) -> str:
    """The numbers in some masks, for whoever has to name them."""
    masks = [folder / MASKS / name for folder in folders for name in list_images(folder / MASKS)]
    try:
        found = sorted({int(value) for mask in masks[:20] for value in np.unique(read_mask(mask))})
    except DataError:  # colours, say; reading the masks will tell
        return ""
    binary = ": write 1 where 255 is a class" if found == [0, VOID] else ""
    shown = ", ".join(map(str, found))
    return f"; {shown} are in the first masks, and 255 is for pixels without a class{binary}"


def _table(table: Path) -> tuple[str, dict[str, Any]]:
    lines = read_lines(table)
    names = list(lines[0])
    columns = {
        meaning: found
        for meaning, usual in _USUAL.items()
        if meaning not in names
        and (found := next((name for name in names if plain(name) in (meaning, *usual)), ""))
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


class _Looked(NamedTuple):
    size: tuple[int, int]
    style: NDArray[np.float64]
    brightest: int


def _looked(dataset: DomainDataset, position: int) -> _Looked:
    image = dataset.image(position)
    if dataset.records[position].clean is not None:
        dataset.clean(position)  # which refuses one of another size
    pixels = image.reshape(-1, 3).astype(np.float64)
    style = np.concatenate([pixels.mean(0), pixels.std(0)])
    return _Looked((image.shape[0], image.shape[1]), style, int(image.max()))


def _is_grey(style: NDArray[np.float64]) -> bool:
    mean, spread = style[:3], style[3:]
    return float(np.ptp(mean)) < 1 and float(np.ptp(spread)) < 1
