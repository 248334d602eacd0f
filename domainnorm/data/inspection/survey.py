"""Survey of a dataset, all of it read once: numbers for a person, and every problem there is."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from domainnorm.data.dataset import UNLABELLED, DomainDataset, FileDataset, Record
from domainnorm.data.images import Progress, orientation_of, read_all
from domainnorm.data.masks import BINARY, OF_BINARY, VOID
from domainnorm.data.refusals import attempted
from domainnorm.data.splits import check_paths
from domainnorm.errors import DataError, counted

DARK = 64  # of 255; values of 14 bits in files of 16


@dataclass(frozen=True)
class Problem:
    """Something that keeps a dataset from being used."""

    file: str  # or group, or key; empty where a message names none
    text: str


@dataclass
class Survey:
    """What `survey_dataset` found.

    Attributes:
        dataset: What was read; None when it could not even be listed.
        images: Number of images by domain and split.
        unlabelled: Number of those without class, mask and findings.
        groups: Number of groups by domain and split.
        labels: Training images by domain and class; for findings those in which it is present.
        absent: Training images in which a finding is absent, by domain and class.
        pixels: Pixels of masks by domain and class; class 255 has none.
        sizes: Images by domain and (height, width).
        brightest: Largest value of any pixel by domain, 0 to 255.
        problems: What keeps the data from being used.
        notes: What a person should know and may be meant.
    """

    dataset: DomainDataset | None = None
    images: Counter[tuple[str, str]] = field(default_factory=Counter)
    unlabelled: Counter[tuple[str, str]] = field(default_factory=Counter)
    groups: Counter[tuple[str, str]] = field(default_factory=Counter)
    labels: Counter[tuple[str, int]] = field(default_factory=Counter)
    absent: Counter[tuple[str, int]] = field(default_factory=Counter)
    pixels: Counter[tuple[str, int]] = field(default_factory=Counter)
    sizes: dict[str, Counter[tuple[int, int]]] = field(default_factory=dict)
    brightest: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Reading:
    """One image, and its mask, as far as they could be read."""

    record: Record
    size: tuple[int, int] | None = None
    digest: bytes = b""
    brightest: int = 0
    pixels: NDArray[np.int64] | None = None  # (256,)
    turned: bool = False  # whether image and mask state different orientations
    problems: tuple[Problem, ...] = ()


def survey_dataset(
    create: Callable[[], DomainDataset], *, progress: Progress | None = None
) -> Survey:
    """Make a dataset, read every image and mask of it in parallel, and count.

    What ``create`` refuses are problems, too.
    """
    survey = Survey()
    survey.dataset, refused = attempted(create)
    survey.problems += [_problem(message) for message in refused]
    if survey.dataset is None:
        return survey
    dataset = survey.dataset
    survey.problems += [_problem(told) for told in attempted(lambda: check_paths(dataset))[1]]
    _count(survey, dataset.records)
    positions = range(len(dataset.records))
    _take(survey, read_all(lambda index: _read(dataset, index), positions, progress))
    survey.problems = list(dict.fromkeys(survey.problems))  # slices share the volume's
    survey.problems += _unnumbered(survey)
    survey.notes += [*told_of(dataset), *_strays(dataset), *_paired(dataset)]
    survey.notes += [
        f"images of domain '{domain}' are nearly black, no value above {value} of 255; if 16-bit "
        "files only use 12 bits, set white: 4095 (folders, manifests and chest_xray)"
        for domain, value in survey.brightest.items()
        if value < DARK
    ]
    return survey


def _count(survey: Survey, records: Iterable[Record]) -> None:
    groups: dict[tuple[str, str], set[str]] = defaultdict(set)
    splits: dict[str, set[str]] = defaultdict(set)
    for record in records:
        place = (record.domain, record.split)
        survey.images[place] += 1
        survey.unlabelled[place] += not record.is_labelled
        groups[place].add(record.group)
        splits[record.group].add(record.split)
        if record.split != "train":
            continue
        if record.target != UNLABELLED:
            survey.labels[record.domain, record.target] += 1
        for finding, value in enumerate(record.labels or ()):
            survey.labels[record.domain, finding] += value == 1
            survey.absent[record.domain, finding] += value == 0
    survey.groups.update({place: len(names) for place, names in groups.items()})
    known = " ".join(problem.text for problem in survey.problems)
    survey.problems += [
        Problem(f"group '{group}'", f"is in the splits {', '.join(sorted(found))}")
        for group, found in splits.items()
        if len(found) > 1 and f"group '{group}'" not in known
    ]


def _read(dataset: DomainDataset, index: int) -> _Reading:
    record = dataset.records[index]
    try:
        image = dataset.image(index)
    except DataError as error:
        return _Reading(record, problems=(_problem_of(dataset, error, record.file),))
    digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
    height, width = image.shape[:2]
    read = _Reading(record, (height, width), digest, int(image.max()))
    if record.clean is not None:
        try:
            dataset.clean(index)
        except DataError as error:
            return replace(read, problems=(_problem_of(dataset, error, record.clean),))
    if record.mask is None:
        return read
    try:
        mask, turned = dataset.mask(index), _turned(dataset, record)
    except DataError as error:
        return replace(read, problems=(_problem_of(dataset, error, record.mask),))
    problems: tuple[Problem, ...] = ()
    if mask.shape != (height, width):
        text = f"{mask.shape[1]} × {mask.shape[0]} pixels, its image has {width} × {height}"
        problems = (Problem(record.mask, text),)
    pixels = np.bincount(mask.ravel(), minlength=VOID + 1)
    return replace(read, pixels=pixels, turned=turned, problems=problems)


def _take(survey: Survey, readings: Iterable[_Reading]) -> None:
    seen: dict[bytes, Record] = {}
    twins: list[tuple[Record, Record]] = []
    differing: list[str] = []
    for reading in readings:
        record = reading.record
        survey.problems += reading.problems
        differing += [record.file] if reading.turned else []
        if reading.size is not None:
            survey.sizes.setdefault(record.domain, Counter())[reading.size] += 1
            found = max(survey.brightest[record.domain], reading.brightest)
            survey.brightest[record.domain] = found
            first = seen.setdefault(reading.digest, record)
            if first.split != record.split:
                twins.append((first, record))
        if reading.pixels is not None:
            for value in np.flatnonzero(reading.pixels).tolist():
                survey.pixels[record.domain, value] += int(reading.pixels[value])
    if twins:
        first, other = twins[0]
        survey.notes.append(
            f"{counted(len(twins), 'image')} with the same pixels as one in another split, such as "
            f"{first.file} ({first.split}) and {other.file} ({other.split})"
        )
    if differing:
        survey.notes.append(
            f"{counted(len(differing), 'image')} with another orientation (EXIF) than the mask, "
            f"such as {', '.join(differing[:3])}; each file is rotated by its own EXIF: check that "
            "both have the same orientation"
        )


def _unnumbered(survey: Survey) -> Iterator[Problem]:
    """Domains without a pixel of a class, or with black and white, where 255 is no class here."""
    for domain in survey.sizes:
        where = f"masks of domain '{domain}'"
        found = {value for name, value in survey.pixels if name == domain}
        if found == {VOID}:
            yield Problem(
                where,
                "have no pixel with a class; unknown numbers or colours may have become pixels "
                "without a class: compare them with the expected ones",
            )
        if found == BINARY:
            yield Problem(where, OF_BINARY)


def _paired(dataset: DomainDataset) -> Iterator[str]:
    """How many pairs each domain has, of a dataset of pairs."""
    pairs = Counter(record.domain for record in dataset.records if record.clean)
    for domain in dataset.domain_names if pairs else ():
        yield f"domain '{domain}': {counted(pairs[domain], 'pair')} of an input and its target"


def told_of(dataset: DomainDataset) -> list[str]:
    """Sentences on files that were left out, and on images without a label beside others."""
    return [*dataset.left_out, *_unlabelled(dataset)]


def _unlabelled(dataset: DomainDataset) -> Iterator[str]:
    """Images without a label in domains in which others have one."""
    labelled = {record.domain for record in dataset.records if record.is_labelled}
    lacking: dict[str, list[str]] = defaultdict(list)
    for record in dataset.records:
        if not record.is_labelled and record.domain in labelled:
            lacking[record.domain].append(record.file)
    for domain, files in lacking.items():
        yield (
            f"{counted(len(files), 'image')} of domain '{domain}' without a label, such as "
            f"{', '.join(files[:3])}; methods that learn from its labels refuse such training and "
            "validation images"
        )


def _strays(dataset: DomainDataset) -> Iterator[str]:
    """Files beside masks that are no mask of an image, but those that the dataset tells of."""
    if not isinstance(dataset, FileDataset):
        return
    root, own = dataset.root, set(dataset.mask_folders)
    masks = {root / record.mask for record in dataset.records if record.mask}
    suffixes = {mask.suffix.lower() for mask in masks}
    used = masks | {root / record.file for record in dataset.records}
    used |= {root / file for file in dataset.left_out.files}
    strays = [
        str(file.relative_to(root))
        for folder in sorted({mask.parent for mask in masks} | own)
        if folder.is_dir()
        for file in sorted(folder.iterdir())
        if file.name[0] != "." and file not in used
        if (file.suffix.lower() in suffixes or folder in own)
    ]
    if strays:
        yield (
            f"{counted(len(strays), 'file')} beside masks, but of no image in use, such as "
            f"{', '.join(strays[:3])}"
        )


def _turned(dataset: DomainDataset, record: Record) -> bool:
    """Whether an image states an orientation which its mask does not, or the other way round."""
    if not isinstance(dataset, FileDataset) or dataset.reads != "images":
        return False
    try:
        first, second = (
            orientation_of(dataset.root / str(one)) for one in (record.file, record.mask)
        )
    except DataError:  # masks may be polygons, which have none
        return False
    return first != second


def _problem_of(dataset: DomainDataset, error: DataError, file: str) -> Problem:
    """What is wrong with a file, or with another one that belongs to it and is below the root."""
    root = f"{dataset.root}/" if isinstance(dataset, FileDataset) else ""
    message = str(error)
    if root and message.startswith(root):
        return _problem(message.removeprefix(root))
    return _problem(message, file)


def _problem(message: str, file: str = "") -> Problem:
    """A message split into the file it starts with, or is known to be about, and the rest."""
    start, colon, rest = message.partition(": ")
    return Problem(file or start, rest) if colon else Problem(file, message)
