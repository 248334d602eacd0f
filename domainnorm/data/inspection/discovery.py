"""Discovery of domains: a pile of images whose domains nobody wrote down, grouped by style.

A pile is a folder, or a table with or without a column of domains; what is found is compared with
what is known of the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from domainnorm.data.dataset import data_folder
from domainnorm.data.folders import Cuts
from domainnorm.data.images import (
    IMAGES,
    MASKS,
    SUFFIXES,
    WHITE,
    Progress,
    check_names,
    find_images,
    read_all,
    read_image,
    without_masks,
)
from domainnorm.data.manifest import NAMES, Manifest
from domainnorm.data.table import Row, normal_path, read_lines, write_lines
from domainnorm.encoders import FoundDomains, find_domains, style_features
from domainnorm.errors import DataError

# As the dataset `manifest` draws them.
_VAL_FRACTION, _TEST_FRACTION = 0.2, 0.3


@dataclass(frozen=True)
class Pile:
    """Images with their splits, and all that is known of them.

    Args:
        root: Folder that paths are relative to, absolute.
        rows: One for each image, sorted by file; their domains say nothing.
        lines: Those of the table to write, in the same order.
        names: What its columns path, target, domain, split and group are called.
    """

    root: Path
    rows: list[Row]
    lines: list[dict[str, str]]
    names: Mapping[str, str]

    def column(self, name: str) -> list[str]:
        """Values of path, target, domain, split or group; empty ones where there are none."""
        return [line.get(self.names[name], "") for line in self.lines]


def open_pile(
    source: str,
    *,
    classes: bool = False,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    ignored: Path | None = None,
) -> Pile:
    """List the images of a folder or of a table; draw splits where none are given.

    Args:
        source: Folder, searched with all folders in it; where there are folders ``images`` and
            ``masks``, files of the first alone are images, and those of the second their targets.
            Or a table as of the dataset ``manifest``, whose paths are relative to its own folder.
            As it is, or else below the folder that DOMAINNORM_DATA names.
        classes: Whether the folder an image lies in is its class; for folders only.
        columns: Names of columns that are called otherwise, for tables only.
        seed: Of drawn splits: 30 % of the images test, 20 % of the others validate.
        ignored: A file that is none of the images.

    Raises:
        DataError: There is no such source, it lists no images, a file's name is not UTF-8, or a
            line is wrong.
    """
    place = _located(source)
    cuts = Cuts(_VAL_FRACTION, _TEST_FRACTION, seed)
    if place.is_dir():
        if columns:
            raise DataError(f"columns: {place} is a folder, which has none; leave the key out")
        return _of_folder(place, classes, cuts, ignored)
    if classes:
        raise DataError(
            f"--classes: {place} is a table, whose column target holds the classes; leave it out"
        )
    return _of_table(place, columns or {}, cuts)


@dataclass(frozen=True)
class Discovery:
    """What `discover_domains` found.

    Args:
        pile: Where the images are from.
        places: Positions in the pile of the images that could be read, (N,).
        found: Their domains.
        problems: What is wrong with each of the others, starting with its file.
        white: Value of 16-bit files that is shown as white.
    """

    pile: Pile
    places: list[int]
    found: FoundDomains
    problems: list[str]
    white: int = WHITE

    @property
    def domain_names(self) -> list[str]:
        """``style_1`` for the largest domain, and so on."""
        width = len(str(self.found.num_domains))
        return [f"style_{label + 1:0{width}d}" for label in range(self.found.num_domains)]

    @property
    def domains(self) -> list[str]:
        """Names of the domains of the images, (N,)."""
        names = self.domain_names
        return [names[label] for label in self.found.domain.tolist()]

    @property
    def splits(self) -> list[str]:
        """Splits of the images, (N,)."""
        return [self.pile.rows[place].split for place in self.places]

    def column(self, name: str) -> list[str]:
        """What the pile says of the images, (N,), as `Pile.column`."""
        values = self.pile.column(name)
        return [values[place] for place in self.places]

    def typical(self, label: int, count: int, size: int | None = None) -> list[NDArray[np.uint8]]:
        """The training images nearest to the centre of a domain, (H, W, 3) each.

        Args:
            label: Of the domain.
            count: How many, or all there are.
            size: See `reduced_to`; whole images when None.
        """
        training = torch.tensor([split == "train" for split in self.splits])
        chosen = self.found.typical(label, count, training)
        files = (self.pile.rows[self.places[at]].file for at in chosen)
        images = (read_image(self.pile.root / file, self.white) for file in files)
        return [image if size is None else reduced_to(image, size) for image in images]

    def agreement(self, name: str) -> float | None:
        """Adjusted Rand index of the domains with a column that has groups of images.

        None where the column says the same of all images, something else of each, or nothing of
        one. 1 is the same partition, 0 what chance gives.

        Reference:
            Hubert and Arabie, Comparing Partitions, Journal of Classification 1985, eq. 5.
        """
        given = self.column(name)
        if not all(given) or not 1 < len(set(given)) < len(given):
            return None
        return float(adjusted_rand_score(given, self.domains))

    def write(self, table: Path) -> None:
        """Write the lines of the pile as a CSV manifest with the domains that were found."""
        name, found = self.pile.names["domain"], zip(self.places, self.domains, strict=True)
        lines = [{**self.pile.lines[place], name: domain} for place, domain in found]
        write_lines(table, lines)


def discover_domains(
    pile: Pile,
    num_domains: int | None = None,
    *,
    max_domains: int = 8,
    size: int = 96,
    white: int = WHITE,
    seed: int = 0,
    progress: Progress | None = None,
) -> Discovery:
    """Read all images of a pile in parallel and find domains in those of the training split.

    The others are assigned to these domains. Images that cannot be read are left out.

    Args:
        pile: The images.
        num_domains: K; as many as there are stable splits for when None.
        max_domains: Largest K that is found.
        size: Shorter side in pixels that larger images are reduced to.
        white: Value of 16-bit files that is shown as white.
        seed: See `find_domains`.
        progress: Wraps the readings, of which it is told the number.

    Raises:
        DataError: No training image can be read.
        ConditionError: See `find_domains`.
    """
    styles = list(
        read_all(lambda row: _style(pile.root / row.file, size, white), pile.rows, progress)
    )
    places = [at for at, style in enumerate(styles) if isinstance(style, Tensor)]
    training = torch.tensor([pile.rows[at].split == "train" for at in places], dtype=torch.bool)
    problems = [style for style in styles if isinstance(style, str)]
    if not bool(training.any()):
        first = f", such as {problems[0]}" if problems else ""
        raise DataError(
            f"{pile.root}: none of {len(styles)} images is readable and in split train, but only "
            f"these are searched for domains{first}"
        )
    found = find_domains(
        torch.stack([style for style in styles if isinstance(style, Tensor)]),
        num_domains,
        max_domains=max_domains,
        shaping=training,
        seed=seed,
    )
    return Discovery(pile, places, found, problems, white)


def _style(file: Path, size: int, white: int) -> Tensor | str:
    """Style features (F,) of a file, or what is wrong with it."""
    try:
        image = read_image(file, white)
    except DataError as error:
        return str(error)
    if min(image.shape[:2]) < 2:
        return f"{file}: {image.shape[1]} × {image.shape[0]} pixels, expected at least 2 × 2"
    return style_of(image, size)


@torch.no_grad()
def style_of(image: NDArray[np.uint8], size: int) -> Tensor:
    """Style features (F,) of an image (H, W, 3), see `reduced_to`."""
    pixels = torch.from_numpy(reduced_to(image, size)).permute(2, 0, 1)[None]
    return style_features(pixels.float() / 255)[0]


def reduced_to(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """An image (H, W, 3) with a shorter side of at most ``size`` pixels, averaged over areas."""
    factor = size / min(image.shape[:2])
    if factor >= 1:
        return image  # enlarging would only add blur
    sides = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return np.asarray(cv2.resize(image, sides, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _located(source: str) -> Path:
    place = Path(source)
    below = data_folder() / source
    for candidate in (place, below):
        if candidate.exists():
            return candidate.absolute()
    raise DataError(
        f"{source}: neither {place.absolute()} nor {below.absolute()} exists; name a folder of "
        "images, or a table that lists some"
    )


def _of_folder(root: Path, classes: bool, cuts: Cuts, ignored: Path | None) -> Pile:
    files = [file for file in find_images(root) if root / file != ignored]
    check_names([root, *files])
    masks = {file.with_suffix(""): file.as_posix() for file in files if MASKS in file.parts}
    visible = without_masks(files)
    if not visible:
        suffixes = " ".join(sorted(SUFFIXES))
        raise DataError(f"{root}: no images; expected files with one of the suffixes {suffixes}")
    if classes and any(len(file.parts) == 1 for file in visible):
        raise DataError(
            f"--classes: {root / visible[0]} lies in no folder of a class; expected <class>/<image>"
        )
    drawn = cuts.drawn(
        [
            Row(file.as_posix(), "", file.parent.name if classes else "", file.as_posix(), "train")
            for file in visible
        ]
    )
    rows = sorted(drawn, key=lambda row: row.file)
    targets = [row.label or masks.get(_mask_of(Path(row.file)), "") for row in rows]
    lines = [
        dict(zip(NAMES, (row.file, target, "", row.split, ""), strict=True))
        for row, target in zip(rows, targets, strict=True)
    ]
    return Pile(root, rows, lines, dict(zip(NAMES, NAMES, strict=True)))


def _mask_of(file: Path) -> Path:
    """Where the mask of an image lies, ``a/masks/1`` of ``a/images/1.jpg``, without its suffix."""
    *folders, name = file.with_suffix("").parts
    return Path(*(MASKS if part == IMAGES else part for part in folders), name)


def _of_table(table: Path, columns: Mapping[str, str], cuts: Cuts) -> Pile:
    given = [{key: value for key, value in line.items() if key} for line in read_lines(table)]
    target = next(filter(None, (line.get(columns.get("target", "target")) for line in given)), "")
    manifest = Manifest(table, columns, cuts, classes=not (table.parent / target).is_file())
    names = manifest.names
    # One domain for all: those of the table must decide nothing, drawn splits included.
    rows = manifest.rows_of([{**line, names["domain"]: "all"} for line in given])
    by_file = {normal_path(line[names["path"]]): line for line in given}
    new = [{names["domain"]: "", names["split"]: row.split} for row in rows]  # where not given
    lines = [
        {**line, **{name: line.get(name, value) for name, value in more.items()}}
        for line, more in zip((by_file[row.file] for row in rows), new, strict=True)
    ]
    return Pile(table.parent, rows, lines, names)
