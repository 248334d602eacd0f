"""Splits, drawn by seed, stratified by domain and class, and shots; no group is torn apart."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from domainnorm.data.dataset import DomainDataset, FileDataset, Record, Split
from domainnorm.data.images import check_names
from domainnorm.data.refusals import refuse, refusing
from domainnorm.data.table import Row
from domainnorm.errors import DataError, counted

_Stratum = tuple[str, str]


def cut(rows: Sequence[Row], split: Split, fraction: float, seed: int) -> list[Row]:
    """Move a fraction of the training groups into another split.

    Groups are drawn within strata, a stratum being the domain and class of a group's first row,
    until the moved images are as near to ``fraction`` as whole groups allow. A stratum always
    keeps a group for training, and gives up at least one when it has three or more. The draw
    depends on the set of rows and on ``seed``, not on their order.

    Args:
        rows: Images of all domains; those whose split is not ``train`` pass through.
        split: Where the drawn groups go.
        fraction: Share of the training images to move, in (0, 1).
        seed: Seed of the draw.

    Returns:
        The rows in their given order, with their new splits.
    """
    training = sorted(
        (row for row in rows if row.split == "train"),
        key=lambda row: (row.domain, row.label, row.file),
    )
    sizes = Counter(row.group for row in training)
    strata: dict[_Stratum, list[str]] = defaultdict(list)
    for group, first in {row.group: row for row in reversed(training)}.items():
        strata[first.domain, first.label].append(group)
    moved: set[str] = set()
    for stratum, groups in strata.items():
        moved.update(_drawn(sorted(groups), sizes, fraction, _generator(seed, split, *stratum)))
    return [
        replace(row, split=split) if row.split == "train" and row.group in moved else row
        for row in rows
    ]


def check_groups(rows: Sequence[Row | Record], where: str) -> None:
    """Raise a DataError for splits that put images of one group on both sides."""
    seen: dict[str, Row | Record] = {}
    torn: set[str] = set()
    for row in rows:
        first = seen.setdefault(row.group, row)
        if first.split != row.split and row.group not in torn:
            torn.add(row.group)
            refuse(
                f"{where}: group '{row.group}' is in split {first.split} ({first.file}) and in "
                f"split {row.split} ({row.file}); a group belongs to one split in all "
                "domains, so move its images together, or give unrelated groups different names. "
                "For films that are cut in time set data.groups: sequences, if the dataset has "
                "that key"
            )


def check_records(dataset: DomainDataset) -> None:
    """What every dataset has to be: files below its root, of names to write, groups of one split.

    Raises:
        DataError: The first of these that is not so.
    """
    check_paths(dataset)
    check_groups(dataset.records, _where(dataset))


def check_paths(dataset: DomainDataset) -> None:
    """Raise a DataError for records of files that are not below the folder of the data.

    Or whose names no table and no log can hold.
    """
    root = dataset.root if isinstance(dataset, FileDataset) else Path()
    with refusing():
        names = {name or "" for one in dataset.records for name in (one.file, one.mask, one.clean)}
        check_names(root / name for name in sorted(names))
    if not isinstance(dataset, FileDataset):
        return
    for record in dataset.records:
        for name in (record.file, record.mask, record.clean):
            path = PurePosixPath(name or "")
            outside = path.is_absolute() and not path.is_relative_to(dataset.root.as_posix())
            if outside or ".." in path.parts:
                refuse(
                    f"{_where(dataset)}: '{name}' is not below the folder of the data; move the "
                    "file there, or set data.root to a folder above all of them"
                )


def _where(dataset: DomainDataset) -> str:
    if dataset.table is not None:
        return str(dataset.table)
    return str(dataset.root) if isinstance(dataset, FileDataset) else "this dataset"


def cut_ends(rows: Sequence[Row], fraction: float, where: str) -> list[Row]:
    """Validate on the end of each sequence's training part.

    Neighbouring frames look alike, so a sequence is never drawn from at random: each of its
    splits is one stretch in the order of file names, and becomes a group of its own. Two frames
    on either side of a cut remain neighbours.

    Args:
        rows: Images whose groups are sequences; nothing is cut when one is for validation.
        fraction: Share of each training stretch to validate on, in (0, 1); at least one of three
            or more images, and never all.
        where: The table they are from, for messages.

    Returns:
        The rows in their given order; groups are named ``<sequence>/<split>``.

    Raises:
        DataError: A split comes back after another one; the message names sequence and file.
    """
    sequences: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.file):
        sequences[row.group].append(row)
    given = any(row.split == "val" for row in rows)
    ends: set[str] = set()
    for name, frames in sequences.items():
        _check_stretches(name, frames, where)
        training = [row.file for row in frames if row.split == "train"]
        wanted = max(round(fraction * len(training)), 1 if len(training) >= 3 else 0)
        count = 0 if given else min(wanted, len(training) - 1)
        ends.update(training[len(training) - count :] if count > 0 else ())
    named = (replace(row, split="val") if row.file in ends else row for row in rows)
    return [replace(row, group=f"{row.group}/{row.split}") for row in named]


def _check_stretches(name: str, frames: Sequence[Row], where: str) -> None:
    over: set[Split] = set()
    for before, frame in itertools.pairwise(frames):
        if before.split != frame.split:
            over.add(before.split)
            if frame.split in over:
                refuse(
                    f"{where}: sequence '{name}' goes back to split {frame.split} at "
                    f"{frame.file}; in the order of file names, each split must be one stretch "
                    "of a sequence"
                )


def draw_shots(dataset: DomainDataset, domain: str, number: int, seed: int) -> list[int]:
    """Positions of the training images of a domain whose labels may be seen.

    Of classes ``number`` images of each that the domain has, as a person would label them; of masks
    and findings ``number`` images. A function of the domain, ``number`` and ``seed`` alone, so that
    all methods of a run see the same ones; with a larger number the smaller one's are among them.

    Args:
        dataset: Its classes are read to draw by them, no mask is.
        domain: Its images with labels are drawn from.
        number: 1 or more.
        seed: Non-negative.

    Raises:
        DataError: A class with fewer images, or no image left without a label.
    """
    training = dataset.positions([domain], "train")
    labelled = [position for position in training if dataset.records[position].is_labelled]
    strata: dict[int, list[int]] = {}
    for position in labelled:
        of_class = dataset.task == "classification"
        stratum = dataset.records[position].target if of_class else 0
        strata.setdefault(stratum, []).append(position)
    generator = _generator(seed, "shots", domain)
    drawn: list[int] = []
    for stratum, positions in sorted(strata.items()):
        if len(positions) < number:
            found = counted(len(positions), "image")
            what = f" of '{dataset.class_names[stratum]}'" if len(strata) > 1 else ""
            raise DataError(
                f"data.shots: {number}, but domain '{domain}' has {found}{what} with a label for "
                f"training; set it to {len(positions)} or less"
            )
        drawn += [positions[place] for place in generator.permutation(len(positions))[:number]]
    if not drawn or len(drawn) == len(training):
        raise DataError(
            f"data.shots: {number} gives {len(drawn)} of the {len(training)} training images of "
            f"domain '{domain}' a label, expected at least one image with and one without"
        )
    return sorted(drawn)


def check_fraction(key: str, value: float) -> None:
    """Raise a DataError for a fraction outside (0, 1)."""
    if not 0 < value < 1:
        raise DataError(f"{key}: {value}, expected a number between 0 and 1, both excluded")


def _drawn(
    groups: list[str], sizes: Counter[str], fraction: float, generator: np.random.Generator
) -> list[str]:
    wanted = fraction * sum(sizes[group] for group in groups)
    drawn: list[str] = []
    taken = 0
    for position in generator.permutation(len(groups)):
        group = groups[position]
        if len(drawn) + 1 == len(groups):
            break
        required = not drawn and len(groups) >= 3
        if required or abs(taken + sizes[group] - wanted) < abs(taken - wanted):
            drawn.append(group)
            taken += sizes[group]
    return drawn


def _generator(*key: int | str) -> np.random.Generator:
    # hash() of a string differs between processes; a digest does not.
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
