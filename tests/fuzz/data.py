"""Broken data folders of every dataset: ``python -m tests.fuzz.data --seed 0 --count 50``.

For each dataset ``count`` copies of its sample have one thing wrong: a file or folder is deleted,
moved, renamed, damaged or replaced, or a line of a table is. Each copy is read as a run reads it,
all images and labels. What may come of it: the same records; a `DataError` that names a file,
folder or key; fewer records, or labels, of which the dataset tells, or whose files are really gone;
and other content where no checksum says so. Anything else is a fault.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from domainnorm.data.dataset import DomainDataset, check_labelled
from domainnorm.data.inspection.survey import told_of
from domainnorm.data.splits import check_records
from domainnorm.errors import DataError
from domainnorm.registry import DATASETS
from tests.fuzz.command import parser_of, tabulate

OUTCOMES = ("refused", "same", "more", "other", "told", "gone", "silent", "escaped")
_CHECKED = (".png", ".gz", ".npz")  # containers whose checksums tell of any damage
_TABLES = (".csv", ".tsv", ".txt")


def _put(file: Path, data: bytes) -> None:
    file.unlink()  # a link to that of the whole sample
    file.write_bytes(data)


def _named(file: Path, name: str) -> None:
    to = file.parent / name
    to.parent.mkdir(exist_ok=True)
    file.rename(to)


def _link(file: Path, to: object) -> None:
    file.unlink()
    file.symlink_to(str(to))


def _flipped(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]


def _like(file: Path, root: Path, draw: random.Random) -> Path:
    return draw.choice(sorted(root.rglob(f"*{file.suffix}")))


def _swap(file: Path, other: Path) -> None:
    first, second = file.read_bytes(), other.read_bytes()
    _put(file, second)
    _put(other, first)


def _linked(place: Path, root: Path) -> None:
    aside = root.with_name("aside")
    place.rename(aside)
    place.symlink_to(aside)


Damage = Callable[[Path, Path, random.Random], object]  # of a file or folder below a root
FILES: dict[str, Damage] = {
    "delete": lambda file, root, draw: file.unlink(),
    "hide": lambda file, root, draw: _named(file, f".{file.name}"),
    "empty": lambda file, root, draw: _put(file, b""),
    "cut": lambda file, root, draw: _put(file, (d := file.read_bytes())[: draw.randrange(len(d))]),
    "flip": lambda file, root, draw: _put(file, _flipped(file.read_bytes(), draw)),
    "swap": lambda file, root, draw: _swap(file, _like(file, root, draw)),
    "stem": lambda file, root, draw: _named(file, f"{file.stem}_x{file.suffix}"),
    "no suffix": lambda file, root, draw: _named(file, file.stem),
    "SUFFIX": lambda file, root, draw: _named(file, file.stem + file.suffix.upper()),
    "UPPER": lambda file, root, draw: _named(file, file.name.upper()),
    "unicode": lambda file, root, draw: _named(file, f"\u00e4\u4e2d{file.name}"),
    "newline": lambda file, root, draw: _named(file, f"a\n{file.name}"),
    "long": lambda file, root, draw: _named(file, "n" * 180 + file.name),
    "latin": lambda file, root, draw: _named(file, f"\udce4{file.name}"),
    "up": lambda file, root, draw: _named(file, f"../{file.name}"),
    "down": lambda file, root, draw: _named(file, f"deeper/{file.name}"),
    "away": lambda file, root, draw: _named(file, str(root / "elsewhere" / file.name)),
    "copy": lambda file, root, draw: shutil.copy(file, file.with_stem(f"{file.stem} (copy)")),
    "copy away": lambda file, root, draw: shutil.copy(
        file, _like(file, root, draw).with_name(f"other_{file.name}")
    ),
    "folder": lambda file, root, draw: (file.unlink(), file.mkdir()),
    "dangling": lambda file, root, draw: _link(file, "nowhere"),
    "loop": lambda file, root, draw: _link(file, file.name),
    "linked": lambda file, root, draw: _linked(file, root),
}
FOLDERS: dict[str, Damage] = {
    "delete /": lambda folder, root, draw: shutil.rmtree(folder),
    "empty /": lambda folder, root, draw: (shutil.rmtree(folder), folder.mkdir()),
    "hide /": lambda folder, root, draw: _named(folder, f".{folder.name}"),
    "file /": lambda folder, root, draw: (shutil.rmtree(folder), folder.write_text("a file")),
    "rename /": lambda folder, root, draw: _named(folder, f"{folder.name}_x"),
    "copy /": lambda folder, root, draw: shutil.copytree(folder, f"{folder}_copy"),
    "linked /": lambda folder, root, draw: _linked(folder, root),
    "loop /": lambda folder, root, draw: (folder / "loop").symlink_to(folder),
    "above /": lambda folder, root, draw: (folder / "above").symlink_to(root),
}
# Of a line, one of its cells, and the root.
LINES: dict[str, Callable[[str, str, Path], str]] = {
    "gone": lambda line, cell, root: "",
    "twice": lambda line, cell, root: f"{line}\n{line}\n",
    "blank": lambda line, cell, root: f"\n{line}\n",
    "return": lambda line, cell, root: f"{line}\r\n",
    "half": lambda line, cell, root: line[: len(line) // 2],
    "semicolons": lambda line, cell, root: line.replace(",", ";").replace(" ", "\t") + "\n",
    "no cell": lambda line, cell, root: line.replace(cell, "", 1) + "\n",
    "NUL": lambda line, cell, root: line.replace(cell, f"{cell}\0", 1) + "\n",
    "word": lambda line, cell, root: line.replace(cell, "strange", 1) + "\n",
    "spaces": lambda line, cell, root: line.replace(cell, f" {cell} ", 1) + "\n",
    "below 0": lambda line, cell, root: line.replace(cell, "-7", 1) + "\n",
    "huge": lambda line, cell, root: line.replace(cell, "9" * 40, 1) + "\n",
    "../": lambda line, cell, root: line.replace(cell, f"../{cell}", 1) + "\n",
    "absolute": lambda line, cell, root: line.replace(cell, f"{root}/{cell}", 1) + "\n",
    "outside": lambda line, cell, root: line.replace(cell, "/etc/hostname", 1) + "\n",
    "quote": lambda line, cell, root: line.replace(cell, f'"{cell}', 1) + "\n",
    "byte": lambda line, cell, root: line.replace(cell, f"{cell}\udce4", 1) + "\n",
}
# After these, files or entries are not there any more, or hidden, which says as much.
GONE = {"delete", "hide", "folder", "delete /", "empty /", "hide /", "file /", "gone", "no cell"}


def damage_line(kind: str, file: Path, root: Path, draw: random.Random) -> None:
    """One thing wrong with one line of a table."""
    lines = file.read_text().splitlines()
    at = draw.randrange(len(lines))
    cell = draw.choice(lines[at].replace(",", " ").split(" "))
    lines[at] = LINES[kind](lines[at], cell, root).removesuffix("\n")
    _put(file, "\n".join([*lines, ""]).encode(errors="surrogateescape"))


class Read(NamedTuple):
    """Of each record its labels and content, how many have a label, and what is left out."""

    records: dict[str, tuple[str, str]]
    labelled: int
    told: list[str]
    domains: list[str]
    sources: list[str]  # those whose images all have labels


def names() -> list[str]:
    """Datasets that have something on the disk, and some again with other keys."""
    found = [name for name in DATASETS.names() if "root" in DATASETS.entry(name).parameters]
    return [*found, "folder splits=", "folder_masks splits="]


def read(name: str, root: Path, whole: Read | None = None) -> Read:
    """Every record, image and label, as a run reads them that asks for the domains of ``whole``."""
    name, *words = name.split()
    options = dict(word.split("=") for word in words)
    asked = whole.domains if whole else None
    dataset: DomainDataset = DATASETS.load(name)(root=str(root), domains=asked, **options)
    check_records(dataset)
    check_labelled(dataset, whole.sources if whole else ())
    found = {}
    for index, record in enumerate(dataset.records):
        digest = hashlib.sha256(dataset.image(index).tobytes())
        if record.mask is not None:
            digest.update(dataset.mask(index).tobytes())
        label = "" if record.target < 0 else dataset.class_names[record.target]
        known = f"{record.domain} {label} {record.labels} {record.mask}"
        found[record.file] = (known, digest.hexdigest())
    "".join([*found, *told_of(dataset)]).encode()  # as logs and digests of a run have them
    labelled = [record.is_labelled for record in dataset.records]
    lacking = {one.domain for one in dataset.records if not one.is_labelled}
    domains = dataset.domain_names
    learned = [domain for domain in domains if domain not in lacking]
    return Read(found, sum(labelled), told_of(dataset), domains, learned)


def damaged(root: Path, draw: random.Random) -> tuple[str, Path]:
    """Damage a copy; what was done to which file or folder."""
    every = sorted(root.rglob("*"))
    folders = [place for place in every if place.is_dir()]
    files = [place for place in every if place.is_file()]
    suffix = draw.choice(sorted({file.suffix for file in files}))
    file = draw.choice([file for file in files if file.suffix == suffix])
    if suffix in _TABLES and draw.random() < 0.7:
        kind = draw.choice(list(LINES))
        damage_line(kind, file, root, draw)
    elif folders and draw.random() < 0.2:
        kind, file = draw.choice(list(FOLDERS)), draw.choice(folders)
        FOLDERS[kind](file, root, draw)
    else:
        kind = draw.choice(list(FILES))
        FILES[kind](file, root, draw)
    return kind, file


def outcome(name: str, root: Path, kind: str, file: Path, whole: Read) -> tuple[str, str]:
    """What came of it, and what is wrong with that; nothing if it is as it should be."""
    try:
        found = read(name, root, whole)
    except DataError as error:
        named = (str(root), "data.", "domain '", *whole.records)
        return "refused", "" if any(one in str(error) for one in named) else f"names none: {error}"
    except Exception as error:
        return "escaped", f"{type(error).__name__}: {error}"
    came = compared(found, whole)
    # Of an image without a label nothing else says that it was ever there.
    if came == "silent" and (kind in GONE or found.labelled == whole.labelled):
        came = "gone"
    checked = kind in ("cut", "flip") and file.name.endswith(_CHECKED)
    wrong = {"silent": "fewer records or labels, and no word"}
    wrong |= {"other": "other content, though checksums say so"} if checked else {}
    return came, wrong.get(came, "")


def compared(found: Read, whole: Read) -> str:
    """What is known of a damaged copy, beside that of the whole sample."""
    if len(found.records) < len(whole.records) or found.labelled < whole.labelled:
        return "told" if set(found.told) - set(whole.told) else "silent"
    if len(found.records) > len(whole.records):
        return "more"
    return "same" if found.records == whole.records else "other"


def fuzz(name: str, seed: int, count: int, place: Path) -> tuple[Counter[str], list[str]]:
    """How often each thing came of it, and faults in words."""
    DATASETS.load(name.partition(" ")[0]).write_sample(place / name)
    whole, draw = read(name, place / name), random.Random(f"{name} {seed}")
    found: Counter[str] = Counter()
    faults = []
    for number in range(count):
        root = place / f"{name} {number}" / "data"
        shutil.copytree(place / name, root, copy_function=os.link)
        kind, file = damaged(root, draw)
        came, wrong = outcome(name, root, kind, file, whole)
        found[came] += 1
        if wrong:
            said = f"{name} {number}: {kind} {str(file.relative_to(root))!r}: {wrong!r}"
            faults.append(said.replace(str(place), ""))
        shutil.rmtree(root.parent)
    return found, faults


def main() -> int:
    parser = parser_of("data", __doc__, 20, "damaged copies of each dataset")
    parser.add_argument("--only", nargs="*", help="datasets, all when left out")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        return tabulate(
            "dataset",
            OUTCOMES,
            (
                (name, *fuzz(name, asked.seed, asked.count, Path(place)))
                for name in asked.only or names()
            ),
        )


if __name__ == "__main__":
    sys.exit(main())
