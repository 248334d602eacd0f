"""Layouts: patterns that say where images, masks, domains, groups and splits are found."""

from __future__ import annotations

import abc
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import (
    DOMAIN_KEYS,
    UNLABELLED,
    FileDataset,
    Record,
    Split,
    resolved_root,
    select_domains,
)
from domainnorm.data.datasets.drawing import draw_boxes, draw_scene, generator_of, write_image
from domainnorm.data.folders import missing_files
from domainnorm.data.images import opened, upright
from domainnorm.data.refusals import is_collecting
from domainnorm.data.splits import check_fraction, cut
from domainnorm.data.table import Row
from domainnorm.errors import DataError

Parts = Mapping[str, str]
_PART = re.compile(r"\{(\w+)(?::([^{}]*))?\}")
_CHOICES = re.compile(r"[\w ,.-]+")


@dataclass(frozen=True)
class Layout:
    r"""Where images lie, and what the parts of their paths mean.

    In the pattern ``{city}`` is any text within a name, ``{split:train,val}`` each of these, which
    all have to be there, and ``{number:\d+}`` what the regular expression matches; ``**/`` are
    any folders. A part that comes again is the same text. The suffix may be in upper or lower
    case. Templates are texts with parts in them; ``{stem}`` is the name of the image without its
    suffix.

    Args:
        images: Pattern of the images, paths below the root.
        domain: Template of the domain.
        group: Template of the group.
        mask: Template of the mask, a path below the root; empty for images without one.
        beside: Templates of further files that belong to an image.
        metadata: Names of parts that are metadata.
        splits: Our names of the values of the part ``split``; all are for training without it.
        derived: What else is known, from the parts of the path.
        strangers: What to say of other files of this suffix in the same folder, refused then.
    """

    images: str
    domain: str
    group: str
    mask: str = ""
    beside: Sequence[str] = ()
    metadata: Sequence[str] = ()
    splits: Mapping[str, Split] = field(default_factory=dict)
    derived: Callable[[Parts], Parts] = lambda parts: {}
    strangers: str = ""

    @cached_property
    def _expression(self) -> re.Pattern[str]:
        literal, *rest = _PART.split(self.images)
        text, seen = re.escape(literal), set()
        for name, rule, following in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            inner = rule or r"[^/]+?"
            if rule and _CHOICES.fullmatch(rule):
                inner = "|".join(map(re.escape, rule.split(",")))
            text += f"(?P={name})" if name in seen else f"(?P<{name}>{inner})"
            text += re.escape(following)
            seen.add(name)
        text, suffix = text.replace(re.escape("**/"), "(?:[^/]+/)*").rsplit(".", 1)
        return re.compile(f"{text}.(?i:{suffix})")

    def globs(self, template: str = "") -> Iterator[str]:
        """A glob for each choice, of the images or of files by a template."""
        rules = {name: rule for name, rule in _PART.findall(self.images) if rule}
        wide = {name: rule.split(",") for name, rule in rules.items() if _CHOICES.fullmatch(rule)}
        for values in itertools.product(*wide.values()):
            chosen = dict(zip(wide, values, strict=True))
            given = template or self.images
            yield _PART.sub(lambda found: chosen.get(found[1], "*"), given)  # noqa: B023

    def parts(self, file: str) -> Parts | None:
        """The parts of an image's path; None where it is not of this layout."""
        match = self._expression.fullmatch(file)
        if match is None:
            return None
        own = {"stem": PurePosixPath(file).stem, **match.groupdict()}
        return {**own, **self.derived(own)}

    def fill(self, template: str, file: str) -> str:
        """A template with the parts of an image's path."""
        return template.format_map(self.parts(file) or {})

    def without(self, folder: str) -> Layout:
        """The same below ``folder``, with which pattern and templates begin."""
        return replace(
            self,
            images=self.images.removeprefix(folder),
            mask=self.mask.removeprefix(folder),
            beside=[template.removeprefix(folder) for template in self.beside],
        )

    def record(self, file: str) -> Record | None:
        """The record of an image; None where it is not of this layout."""
        parts = self.parts(file)
        if parts is None:
            return None
        given = parts.get("split", "train")
        return Record(
            file,
            self.domain.format_map(parts),
            UNLABELLED,
            self.group.format_map(parts),
            self.splits.get(given, cast("Split", given)),
            self.mask.format_map(parts) or None,
            metadata={name: parts[name] for name in self.metadata},
        )

    def scan(self, root: Path, advice: str) -> Iterator[Record]:
        """Records of all images, sorted within each choice.

        Args:
            root: Folder of the data.
            advice: What to do where there are none.

        Raises:
            DataError: There are none of a choice, or a file has another name.
        """
        for pattern in self.globs():
            for file in found(root, pattern, advice, alone=not self.strangers):
                record = self.record(file)
                if record is None:
                    said = self.strangers or f"expected names such as {self.images}; move it away"
                    raise DataError(f"{root / file}: {said}")
                yield record


def found(root: Path, pattern: str, advice: str, *, alone: bool = True) -> list[str]:
    """Paths below ``root`` that match ``pattern``, in either case of the suffix, sorted.

    Args:
        root: Folder of the data.
        pattern: A glob.
        advice: What to do where there are none.
        alone: Whether only names that match are meant, or all of the suffix in the folder.

    Raises:
        DataError: There is none.
    """
    path = PurePosixPath(pattern)
    wide = path.with_suffix(".*") if alone else path.with_name("*")
    files = sorted(
        file.relative_to(root).as_posix()
        for file in root.glob(str(wide))
        # Files that start with a dot are remains of archives made on a Mac (._image.png).
        if file.name[0] != "." and path.suffix.lower() in (".*", file.suffix.lower())
    )
    if not files:
        folder = root / path.parent
        state = "nothing to read" if "*" in str(folder) or folder.is_dir() else "no such folder"
        raise DataError(f"{folder}: {state}; no file {pattern}; {advice}")
    return files


class OfficialDataset(FileDataset, abc.ABC):
    """Files in an official layout; the splits that it lacks are drawn.

    Args:
        root: Folder of the data: absolute, or relative to the folder that the environment
            variable DOMAINNORM_DATA names (``data`` when it is not set).
        domains: Domains to use, in this order; null for all.
        val_fraction: Share of the training images to validate on, in (0, 1).
        split_seed: Seed of drawn splits.

    Attributes:
        known: Names of the domains.
        stratum: Name of the metadata whose values are drawn from evenly; the class when empty.

    Raises:
        DataError: The root, a folder or a file is missing or wrong, or a key is; the message
            names it.
    """

    known: Sequence[str]
    stratum: str = ""

    def __init__(
        self,
        *,
        root: str,
        domains: list[str] | None = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
    ) -> None:
        self.root = resolved_root(root)
        known = self.find_domains(domains or ())
        self.domain_names = select_domains(DOMAIN_KEYS, domains, known)
        records = self.draw(self.scan(), val_fraction, split_seed)
        self.records = [record for record in records if record.domain in self.domain_names]

    def find_domains(self, asked: Sequence[str]) -> Sequence[str]:
        """Names of the domains there are."""
        return self.known

    @abc.abstractmethod
    def scan(self) -> list[Record]:
        """Records in the official splits, at least those of the chosen domains."""

    def draw(self, records: Sequence[Record], fraction: float, seed: int) -> list[Record]:
        """Draw the splits that are not official: here validation, in each domain."""
        return draw_split(records, "val", fraction, seed, stratum=self.stratum)


class TestedDataset(OfficialDataset):
    """Files in an official layout that does not say what to test all domains on.

    Args:
        test_fraction: Share of all images to test on where there is no official split, in (0, 1).
        options: Keys of `OfficialDataset`.
    """

    def __init__(self, *, test_fraction: float = 0.3, **options: Any) -> None:
        self.test_fraction = test_fraction
        super().__init__(**options)

    def draw(self, records: Sequence[Record], fraction: float, seed: int) -> list[Record]:
        """Draw test images, and images for validation from the others."""
        tested = draw_split(records, "test", self.test_fraction, seed, stratum=self.stratum)
        return super().draw(tested, fraction, seed)


class LayoutDataset(OfficialDataset):
    """Images that layouts find; a subclass states them, and how its masks are stored.

    Attributes:
        files: The layouts.
        page: Where the docs say how to get the data.
        lacking: What is said of a mask that is missing.
        examples: What a sample has: names of images with ``{}`` for each of some numbers.
        drawn: Height and width of the images of a sample.
        drawn_classes: Number of classes of their masks.
        nested: Whether each class lies within the one before.
    """

    files: Sequence[Layout]
    page: str = "docs/data_medical.md"
    lacking: str = (
        "missing, but {image} is there; unpack the archive of labels as well, or remove the image"
    )
    examples: Sequence[tuple[str, Iterable[object]]]
    drawn: tuple[int, int] = (96, 96)
    drawn_classes: int = 2
    nested: bool = False

    def scan(self) -> list[Record]:
        """Records of all images, in the official splits."""
        records, others = [], set()
        for layout in self.layouts():
            own = list(layout.scan(self.root, self.advice))
            for template in filter(None, (layout.mask, *layout.beside)):
                belonging = [(layout.fill(template, r.file), r) for r in own]
                self._require(belonging)
                others |= {file for file, _ in belonging}
            self._tell_lonely(layout, {record.mask for record in own})
            records += own
        self._tell_strangers(records, others)
        return records

    def _tell_lonely(self, layout: Layout, masks: Collection[str | None]) -> None:
        """Tell of masks by whose names there should be an image."""
        for pattern in layout.globs(layout.mask) if layout.mask else ():
            for file in sorted(self.root.glob(pattern)):
                name = file.relative_to(self.root).as_posix()
                if name not in masks and file.name[0] != ".":
                    self.left_out.add("mask without an image", name)

    def _tell_strangers(self, records: Sequence[Record], others: Collection[str]) -> None:
        """Tell of files beside images, of their suffix, that are neither those nor ``others``."""
        known = {record.file for record in records}.union(others)
        files = (PurePosixPath(record.file) for record in records)
        for folder, suffix in sorted({(file.parent, file.suffix.lower()) for file in files}):
            for entry in sorted((self.root / folder).iterdir()):
                file = (folder / entry.name).as_posix()
                alike = entry.suffix.lower() == suffix and entry.name[0] != "."
                if alike and file not in known:
                    self.left_out.add("image of another name than expected", file)

    def layouts(self) -> Sequence[Layout]:
        """Those that are read below this root, with these keys."""
        return self.files

    @property
    def advice(self) -> str:
        """What to do where files are missing."""
        return f"{self.page} says what to download and unpack: {self.layout}"

    def beside(self, template: str, file: str) -> Path:
        """A file that belongs to an image."""
        layout = next(layout for layout in self.files if layout.parts(file) is not None)
        return self.root / layout.fill(template, file)

    def _require(self, pairs: Sequence[tuple[str, Record]]) -> None:
        """Refuse images whose files do not exist.

        Raises:
            DataError: Names the first missing file and its image.
        """
        missing = set(missing_files(self.root, [file for file, _ in pairs]))
        if pairs and len(missing) == len({file for file, _ in pairs}) > 1:
            raise DataError(f"{self.root}: no file {pairs[0][0]} and so on; {self.advice}")
        lacking = [record for file, record in pairs if file in missing]
        if lacking and not is_collecting():
            file = next(file for file, record in pairs if record is lacking[0])
            said = self.lacking.format(
                image=lacking[0].file, count=len(lacking), total=len(pairs), page=self.page
            )
            raise DataError(f"{self.root / file}: {said} ({self.page})")

    @classmethod
    def write_sample(cls, root: Path, *, seed: int = 0) -> None:
        """Write drawn images with boxes of the classes in the official layout."""
        for names, numbers in cls.examples:
            for number in numbers:
                cls.write_example(root, names.format(number), seed)

    @classmethod
    def write_example(cls, root: Path, file: str, seed: int, look: str = "") -> None:
        """Draw one image and its mask.

        Args:
            root: Folder of the data.
            file: Path of the image below it.
            seed: Seed of what is drawn.
            look: Name that decides how it looks; that of its domain when empty.
        """
        record = next(record for layout in cls.files if (record := layout.record(file)))
        # One mask for all images that have it.
        generator, look = generator_of(seed, record.mask or file), look or record.domain
        if cls.nested:
            things = range(1, cls.drawn_classes)
            image, classes = draw_boxes(generator, things, look, cls.drawn, nested=True)
        else:
            image, classes = draw_scene(generator, cls.drawn_classes, look, cls.drawn)
        write_image(root / file, image)
        if record.mask:
            cls.write_mask(root, record, classes)

    @classmethod
    def write_mask(cls, root: Path, record: Record, classes: NDArray[np.uint8]) -> None:
        """Write the mask of a drawn image, and what else belongs to it."""
        write_image(root / str(record.mask), cls.stored(classes))

    @classmethod
    def stored(cls, classes: NDArray[np.uint8]) -> NDArray[Any]:
        """What the file of a mask holds for these classes, (H, W)."""
        return classes


class GreyMasks(LayoutDataset):
    """Masks that are drawings in greys, such as black, grey and white.

    Attributes:
        codes: Grey value of each class; ``mask_lookup`` is to be `nearest` of them.
    """

    codes: Sequence[int]

    def read_values(self, file: Path) -> NDArray[np.uint8]:
        """Grey values, (H, W)."""
        return read_grey(file)

    @classmethod
    def stored(cls, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The greys of classes."""
        return np.array(cls.codes, np.uint8)[classes]


def nearest(codes: Sequence[int]) -> NDArray[np.uint8]:
    """The class whose code is nearest to each grey value, (256,): some copies were resampled."""
    order = np.argsort(codes)
    greys = np.array(codes)[order]
    between = (greys[1:] + greys[:-1]) / 2
    return order[np.searchsorted(between, np.arange(256), side="right")].astype(np.uint8)


def read_grey(file: Path) -> NDArray[np.uint8]:
    """Grey values of a file of labels in any number of channels or bits: (H, W), 0 to 255.

    Unlike `decode.read_mask`, which takes stored numbers for classes, a palette is looked up
    and colours are weighted: official masks are drawings in black, grey and white.

    Raises:
        DataError: The file is missing, truncated, damaged or no image; the message names it.
    """
    with opened(file, "mask") as image:
        return upright(np.asarray(image.convert("L"), dtype=np.uint8), image)


def draw_split(
    records: Sequence[Record],
    split: Literal["val", "test"],
    fraction: float,
    seed: int,
    *,
    stratum: str = "",
) -> list[Record]:
    """Move whole groups from ``train`` to a split, in domains that have no image of that split.

    Args:
        records: Images of all domains.
        split: Where drawn groups go.
        fraction: Share of the training images to move, in (0, 1).
        seed: Seed of the draw.
        stratum: Name of the metadata whose values are drawn from evenly; the class when empty.

    Raises:
        DataError: The fraction is out of range.
    """
    check_fraction(f"data.{split}_fraction", fraction)
    given = {record.domain for record in records if record.split == split}
    rows = [
        Row(
            record.file,
            record.domain,
            record.metadata[stratum] if stratum else str(record.target),
            record.group,
            record.split,
        )
        for record in records
        if record.domain not in given
    ]
    splits = {row.file: row.split for row in cut(rows, split, fraction, seed)}
    return [replace(record, split=splits.get(record.file, record.split)) for record in records]
